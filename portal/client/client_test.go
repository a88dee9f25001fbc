package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"livemend.dev/livemend/portal/client"
	trustclient "livemend.dev/livemend/trust/client"
)

func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return client.New(server.URL+"/", " secret\n", nil)
}

func TestTheCredentialStaysHere(t *testing.T) {
	var stolen []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stolen = append(stolen, r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	var shown []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, r.Header.Get("Authorization"))
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	var refusal *client.Error
	if err := c.RemoveSystem(t.Context(), "S-1"); !errors.As(err, &refusal) || refusal.Status != http.StatusTemporaryRedirect {
		t.Errorf("a redirect: %v", err)
	}
	if _, err := c.Fetch(t.Context(), "timestamp.json", 10); err == nil {
		t.Error("a redirected repository file was taken")
	}
	if len(stolen) != 0 {
		t.Errorf("the redirect was followed: %q", stolen)
	}
	if len(shown) != 2 || shown[0] != "Bearer secret" || shown[1] != "" {
		t.Errorf("shown %q; want the credential for the API, nothing for the public repository", shown)
	}
}

func TestIdsCannotChangeThePath(t *testing.T) {
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.EscapedPath())
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.DeleteKey(t.Context(), "../systems/x?y"); err != nil {
		t.Fatal(err)
	}
	if want := "DELETE /api/v1/keys/..%2Fsystems%2Fx%3Fy"; len(paths) != 1 || paths[0] != want {
		t.Errorf("asked for %q, want %q", paths, want)
	}
}

func TestAnswersThatAreNot(t *testing.T) {
	for what, c := range map[string]struct {
		status int
		kind   string
		body   string
		code   string
	}{
		"problem":                 {409, "application/problem+json", `{"type":"urn:livemend:portal:conflict","detail":"d"}`, "conflict"},
		"problem of somebody":     {409, "application/problem+json; charset=utf-8", `{"type":"about:blank","detail":"d"}`, "http"},
		"a proxy's page":          {502, "text/html", `<html>`, "http"},
		"broken problem":          {500, "application/problem+json", `{`, "http"},
		"success without content": {200, "application/json", ``, ""},
		"success in HTML":         {200, "text/html", `<html>`, ""},
		"endless success":         {200, "application/json", `"` + strings.Repeat("x", 33<<20), ""},
	} {
		caller := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			if _, err := io.WriteString(w, c.body); err != nil {
				return // the client stopped reading
			}
		})
		_, err := caller.Customers(t.Context())
		var refusal *client.Error
		if err == nil || errors.As(err, &refusal) != (c.code != "") || refusal != nil && (refusal.Code != c.code || refusal.Status != c.status) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFetch(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/repo/1.root.json" {
			http.NotFound(w, r)
			return
		}
		if _, err := io.WriteString(w, "12345"); err != nil {
			t.Error(err)
		}
	})
	if got, err := c.Fetch(t.Context(), "1.root.json", 5); err != nil || string(got) != "12345" {
		t.Errorf("Fetch = %q, %v", got, err)
	}
	if _, err := c.Fetch(t.Context(), "1.root.json", 4); err == nil {
		t.Error("a file over its limit was taken")
	}
	if _, err := c.Fetch(t.Context(), "2.root.json", 5); !errors.Is(err, trustclient.ErrNotFound) {
		t.Errorf("no file: %v, want ErrNotFound", err)
	}
}
