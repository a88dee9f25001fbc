package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/api"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/store/storetest"
)

// site is a platform with its REST interface.
type site struct {
	t *testing.T
	p *platformtest.Platform
	s *httptest.Server
}

func start(t *testing.T) *site {
	t.Helper()
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	s := httptest.NewServer(api.New(p.Service, api.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}))
	t.Cleanup(s.Close)
	return &site{t, p, s}
}

// ask sends a request; change, unless nil, changes it first.
func (s *site) ask(method, path, body string, change func(*http.Request)) (*http.Response, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.s.URL+api.Prefix+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]any{}
	if len(raw) > 0 && raw[0] == '{' {
		if err := json.Unmarshal(raw, &out); err != nil {
			s.t.Fatalf("%s %s: %q", method, path, raw)
		}
	}
	return resp, out
}

// token makes an API token and returns what puts it into a request.
func (s *site) token(role string) func(*http.Request) {
	s.t.Helper()
	made, err := s.p.Service.CreateAPIToken(s.t.Context(), s.p.Admin, platform.NewAPIToken{Name: role, Role: role})
	if err != nil {
		s.t.Fatal(err)
	}
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+made.Text) }
}

func TestEveryOperationAsksWhoItIs(t *testing.T) {
	s := start(t)
	resp, doc := s.ask("GET", "/openapi.json", "", nil)
	if resp.StatusCode != http.StatusOK || doc["openapi"] != "3.1.0" {
		t.Fatalf("description: %d %v", resp.StatusCode, doc["openapi"])
	}
	paths := doc["paths"].(map[string]any)
	if len(paths) < 30 {
		t.Errorf("only %d paths are described", len(paths))
	}
	viewer := s.token("viewer")
	writes := map[string]bool{"POST": true, "PUT": true, "PATCH": true, "DELETE": true}
	own := map[string]bool{"/session": true, "/password": true, "/livepatch/plan": true}
	for path, operations := range paths {
		path = strings.TrimPrefix(path, api.Prefix)
		for method := range operations.(map[string]any) {
			method = strings.ToUpper(method)
			if path == "/session" && method == "POST" {
				continue
			}
			asked := strings.ReplaceAll(path, "{id}", "1")
			body := ""
			if writes[method] {
				body = `{"name":"x","role":"viewer","scenario":"customer","approve":true,"enabled":true,"disabled":true,"path":"p","reason":"r","updates":[],"current":"x","new":"y"}`
			}
			resp, problem := s.ask(method, asked, body, nil)
			// Some bodies do not fit; nobody may learn more than that.
			if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusUnprocessableEntity {
				t.Errorf("%s %s without a credential: %d %v", method, asked, resp.StatusCode, problem)
			}
			if resp, problem := s.ask(method, asked, body, viewer); writes[method] && !own[path] &&
				resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnprocessableEntity {
				t.Errorf("%s %s by a viewer: %d %v", method, asked, resp.StatusCode, problem)
			}
		}
	}
}

func TestSession(t *testing.T) {
	s := start(t)
	resp, problem := s.ask("POST", "/session", `{"name":"admin","password":"wrong"}`, nil)
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Content-Type") != "application/problem+json" || problem["type"] != api.ProblemPrefix+"credentials" {
		t.Errorf("a wrong password: %d %v", resp.StatusCode, problem)
	}
	resp, who := s.ask("POST", "/session", `{"name":"admin","password":"`+platformtest.Password+`"}`, nil)
	if resp.StatusCode != http.StatusOK || who["name"] != "admin" || len(resp.Cookies()) != 1 {
		t.Fatalf("signing in: %d %v", resp.StatusCode, who)
	}
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie %+v", cookie)
	}
	with := func(r *http.Request) { r.AddCookie(cookie) }
	if resp, _ := s.ask("POST", "/keys", `{"note":"one"}`, with); resp.StatusCode != http.StatusOK {
		t.Errorf("making a key: %d", resp.StatusCode)
	}
	stranger := func(r *http.Request) {
		with(r)
		r.Header.Set("Origin", "https://stranger.example")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	if resp, problem := s.ask("POST", "/keys", `{}`, stranger); resp.StatusCode != http.StatusForbidden || problem["type"] != api.ProblemPrefix+"cross-origin" {
		t.Errorf("a stranger's page: %d %v", resp.StatusCode, problem)
	}
	if resp, _ := s.ask("DELETE", "/session", "", with); resp.StatusCode != http.StatusNoContent {
		t.Errorf("signing out: %d", resp.StatusCode)
	}
	if resp, _ := s.ask("GET", "/overview", "", with); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", resp.StatusCode)
	}
}

func TestProblems(t *testing.T) {
	s := start(t)
	admin := s.token("admin")
	for _, tt := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/servers/S-NONE", "", http.StatusNotFound, "not-found"},
		{"GET", "/jobs/99", "", http.StatusNotFound, "not-found"},
		{"POST", "/livepatch", `{}`, http.StatusConflict, "conflict"},
		{"POST", "/scans", `{}`, http.StatusConflict, "conflict"},
		{"GET", "/servers?after=x", "", http.StatusUnprocessableEntity, "input"},
		{"GET", "/coverage?after=x", "", http.StatusUnprocessableEntity, "input"},
		{"GET", "/jobs?after=x", "", http.StatusUnprocessableEntity, "input"},
		{"GET", "/audit?after=x", "", http.StatusUnprocessableEntity, "input"},
		{"POST", "/keys", `{"server_limit":99000000}`, http.StatusUnprocessableEntity, "input"},
		{"POST", "/users", `{"name":"admin","role":"viewer"}`, http.StatusConflict, "conflict"},
	} {
		resp, problem := s.ask(tt.method, tt.path, tt.body, admin)
		if resp.StatusCode != tt.status || problem["type"] != api.ProblemPrefix+tt.code || problem["detail"] == "" {
			t.Errorf("%s %s: %d %v", tt.method, tt.path, resp.StatusCode, problem)
		}
	}
	if resp, _ := s.ask("POST", "/keys", `{"note":"`+strings.Repeat("x", 2<<20)+`"}`, admin); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %d", resp.StatusCode)
	}
	if resp, _ := s.ask("GET", "/overview", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer lmapi_wrong") }); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a wrong token: %d", resp.StatusCode)
	}
}

func TestStream(t *testing.T) {
	s := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.s.URL+api.Prefix+"/events/stream?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.token("viewer")(req)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("got %d %s", resp.StatusCode, kind)
	}
	if _, err := s.p.Service.CreateKey(t.Context(), s.p.Admin, platform.NewKey{}); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	var got bytes.Buffer
	for lines.Scan() {
		got.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), "created registration key") {
			break
		}
	}
	if !strings.Contains(got.String(), "id: 1\nevent: enrolment\n") {
		t.Errorf("stream:\n%s", got.String())
	}
	tokens, err := s.p.Service.APITokens(t.Context(), s.p.Admin)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if err := s.p.Service.DeleteAPIToken(t.Context(), s.p.Admin, token.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.p.Service.CreateKey(t.Context(), s.p.Admin, platform.NewKey{Note: "after"}); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to the end, which comes
		if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), "created registration key") {
			t.Error("a revoked token still hears: " + lines.Text())
		}
	}
}
