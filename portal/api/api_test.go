package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/api"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/portal/portaltest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/wire"
)

func TestMain(m *testing.M) { os.Exit(storetest.Run(m)) }

// registration returns a new machine's registration with a key.
func registration(t *testing.T, text string) client.Registration {
	t.Helper()
	key, err := enrol.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := enrol.Binding{
		Challenge: []byte("c"), Handshake: []byte("h"), Credential: key.ID(), IdentityKey: public, ChannelKey: make([]byte, 32),
	}
	return client.Registration{
		KeyID: key.ID(), Facts: wire.Facts{Hostname: "web1", MachineID: "m1"}, Challenge: b.Challenge, Handshake: b.Handshake,
		KeyProof: key.Prove(b), IdentityKey: public, ChannelKey: b.ChannelKey, IdentityProof: ed25519.Sign(private, b.Bytes()),
	}
}

// objects are what one partner has.
type objects struct {
	customer client.Customer
	key      client.CreatedKey
	system   client.System
}

func populate(t *testing.T, c *client.Client) objects {
	t.Helper()
	ctx := t.Context()
	var o objects
	var err error
	if o.customer, err = c.CreateCustomer(ctx, "Example Ltd"); err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	o.key, err = c.CreateKey(ctx, client.NewKey{CustomerID: o.customer.ID, Note: "n", ServerLimit: 5, ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	if !o.key.Enabled || !o.key.ExpiresAt.Equal(expires) || o.key.CustomerID != o.customer.ID || o.key.ServerLimit != 5 {
		t.Errorf("created key = %+v", o.key)
	}
	if o.system, err = c.Register(ctx, registration(t, o.key.Text)); err != nil {
		t.Fatal(err)
	}
	if o.system.Flags == nil || o.system.CustomerID != o.customer.ID || o.system.Hostname != "web1" {
		t.Errorf("registered system = %+v", o.system)
	}
	return o
}

func codeOf(err error) string {
	var refusal *client.Error
	if errors.As(err, &refusal) {
		return fmt.Sprintf("%d %s", refusal.Status, refusal.Code)
	}
	return fmt.Sprint(err)
}

func TestClientAndServerAgree(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := portaltest.Start(t, dsn)
		c, ctx := p.Client(t, "a"), t.Context()
		o := populate(t, c)
		if list, err := c.Customers(ctx); err != nil || len(list) != 1 || list[0] != o.customer {
			t.Errorf("Customers = %v, %v", list, err)
		}
		if err := c.SetKeyEnabled(ctx, o.key.ID, false); err != nil {
			t.Error(err)
		}
		if list, err := c.Keys(ctx, o.customer.ID); err != nil || len(list) != 1 || list[0].Enabled || list[0].Servers != 1 {
			t.Errorf("Keys = %+v, %v", list, err)
		}
		if _, err := c.Register(ctx, registration(t, o.key.Text)); codeOf(err) != "403 key-refused" {
			t.Errorf("a disabled key: %v", err)
		}
		if err := c.DeleteKey(ctx, o.key.ID); err != nil {
			t.Error(err)
		}
		if list, err := c.Systems(ctx, o.customer.ID); err != nil || len(list) != 1 || list[0].ID != o.system.ID {
			t.Errorf("Systems = %+v, %v", list, err)
		}
		if err := c.RemoveSystem(ctx, o.system.ID); err != nil {
			t.Error(err)
		}
		if err := c.RemoveSystem(ctx, o.system.ID); codeOf(err) != "404 not-found" {
			t.Errorf("removing it again: %v", err)
		}
		if list, err := c.Systems(ctx, o.customer.ID); err != nil || list == nil || len(list) != 0 {
			t.Errorf("Systems = %#v, %v; want an empty list", list, err)
		}
	})
}

// attempt is one operation tried on somebody else's objects.
type attempt struct {
	try  func(ctx context.Context, c *client.Client, o objects) error
	want string
}

// attempts holds every operation that names an object, by its id in the
// OpenAPI document; the ones that name none are in harmless.
func attempts(t *testing.T) map[string]attempt {
	return map[string]attempt{
		"create-key": {func(ctx context.Context, c *client.Client, o objects) error {
			_, err := c.CreateKey(ctx, client.NewKey{CustomerID: o.customer.ID, ServerLimit: 1})
			return err
		}, "404 not-found"},
		"list-keys": {func(ctx context.Context, c *client.Client, o objects) error {
			_, err := c.Keys(ctx, o.customer.ID)
			return err
		}, "404 not-found"},
		"change-key": {func(ctx context.Context, c *client.Client, o objects) error {
			return c.SetKeyEnabled(ctx, o.key.ID, false)
		}, "404 not-found"},
		"delete-key": {func(ctx context.Context, c *client.Client, o objects) error {
			return c.DeleteKey(ctx, o.key.ID)
		}, "404 not-found"},
		"register-system": {func(ctx context.Context, c *client.Client, o objects) error {
			_, err := c.Register(ctx, registration(t, o.key.Text))
			return err
		}, "403 key-refused"},
		"list-systems": {func(ctx context.Context, c *client.Client, o objects) error {
			_, err := c.Systems(ctx, o.customer.ID)
			return err
		}, "404 not-found"},
		"remove-system": {func(ctx context.Context, c *client.Client, o objects) error {
			return c.RemoveSystem(ctx, o.system.ID)
		}, "404 not-found"},
		"release": {func(ctx context.Context, c *client.Client, _ objects) error {
			return c.Publish(ctx, []byte("{}"), nil)
		}, "403 forbidden"},
		"upload-artifact": {func(ctx context.Context, c *client.Client, _ objects) error {
			return c.Publish(ctx, []byte("{}"), map[string][]byte{"a": nil})
		}, "403 forbidden"},
	}
}

var harmless = map[string]bool{"create-customer": true, "list-customers": true}

// operations returns the ids, methods and paths of the OpenAPI document.
func operations(t *testing.T, url string) map[string][2]string {
	t.Helper()
	resp, err := http.Get(url + "/api/v1/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := errors.Join(json.NewDecoder(resp.Body).Decode(&document), resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("OpenAPI version %q", document.OpenAPI)
	}
	out := make(map[string][2]string)
	for path, methods := range document.Paths {
		for method, op := range methods {
			out[op.OperationID] = [2]string{strings.ToUpper(method), path}
		}
	}
	return out
}

// TestOnePartnerCannotReachAnothers tries every operation of the document with
// the ids of another partner, and looks whether anything is different after.
func TestOnePartnerCannotReachAnothers(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := portaltest.Start(t, dsn)
		owner, thief := p.Client(t, "owner"), p.Client(t, "thief")
		theirs := populate(t, owner)
		populate(t, thief)
		tries := attempts(t)
		for id := range operations(t, p.URL) {
			try, ok := tries[id]
			if !ok && !harmless[id] {
				t.Errorf("operation %s is not tried here: add it", id)
			}
			if !ok {
				continue
			}
			if err := try.try(t.Context(), thief, theirs); codeOf(err) != try.want {
				t.Errorf("%s with another partner's ids: %v, want %s", id, err, try.want)
			}
		}
		if list, err := thief.Customers(t.Context()); err != nil || len(list) != 1 || list[0].ID == theirs.customer.ID {
			t.Errorf("the thief's customers = %v, %v", list, err)
		}
		keys, err := owner.Keys(t.Context(), theirs.customer.ID)
		if err != nil || len(keys) != 1 || !keys[0].Enabled || keys[0].Servers != 1 {
			t.Errorf("the owner's keys are now %+v, %v", keys, err)
		}
		systems, err := owner.Systems(t.Context(), theirs.customer.ID)
		if err != nil || len(systems) != 1 {
			t.Errorf("the owner's systems are now %+v, %v", systems, err)
		}
	})
}

func TestNothingWithoutACredential(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	for id, op := range operations(t, p.URL) {
		for _, credential := range []string{"", "Bearer nonsense", "Basic Zm9vOmJhcg=="} {
			req, err := http.NewRequest(op[0], p.URL+op[1], strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if credential != "" {
				req.Header.Set("Authorization", credential)
			}
			p.Advance(10 * time.Second) // let the bucket of unknown callers fill again
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" ||
				resp.Header.Get("Content-Type") != "application/problem+json" || !bytes.Contains(content, []byte(`"urn:livemend:portal:unauthenticated"`)) {
				t.Errorf("%s with %q: %d %s", id, credential, resp.StatusCode, content)
			}
		}
	}
}

func TestVendorCredentialIsForPublishingOnly(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	if _, err := p.Vendor(t).CreateCustomer(t.Context(), "x"); codeOf(err) != "403 forbidden" {
		t.Errorf("the vendor created a customer: %v", err)
	}
}

func TestMalformedRequests(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	credential := p.Credential(t, "a", portal.ScopePartner)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/customers", `{"name":`, 400},
		{"POST", "/customers", `{}`, 422},
		{"POST", "/customers", `{"name":"x","more":1}`, 422},
		{"POST", "/customers", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 413},
		{"POST", "/keys", `{"customer_id":"C-1","server_limit":0}`, 422},
		{"GET", "/keys", ``, 422},
		{"GET", "/keys?customer_id=%00", ``, 404},
		{"GET", "/systems?customer_id=%ff", ``, 404},
		{"DELETE", "/keys/..%2f..%2fx", ``, 404},
		{"DELETE", "/systems/%00", ``, 404},
		{"GET", "/nothing", ``, 404},
	} {
		req, err := http.NewRequest(c.method, p.URL+"/api/v1"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+credential)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != c.status {
			t.Errorf("%s %.60s %.60s: %d, want %d", c.method, c.path, c.body, resp.StatusCode, c.status)
		}
	}
}

func TestRequestLimits(t *testing.T) {
	slow := api.Rate{PerSecond: 0.001, Burst: 3}
	fast := api.Rate{PerSecond: 1000, Burst: 1000}
	tooMany := "429 too-many"
	try := func(t *testing.T, limits api.Limits, c func(p *portaltest.Portal) *client.Client, first string) {
		t.Helper()
		p := portaltest.StartLimited(t, storetest.SQLite(t), limits)
		caller := c(p)
		for i := range 5 {
			_, err := caller.Customers(t.Context())
			want := first
			if i >= slow.Burst {
				want = tooMany
			}
			if codeOf(err) != want {
				t.Errorf("request %d: %v, want %s", i+1, err, want)
			}
		}
		p.Advance(time.Hour)
		if _, err := caller.Customers(t.Context()); codeOf(err) != first {
			t.Errorf("an hour later: %v, want %s", err, first)
		}
	}
	known := func(p *portaltest.Portal) *client.Client { return p.Client(t, "a") }
	stranger := func(p *portaltest.Portal) *client.Client { return client.New(p.URL, "guess", nil) }
	t.Run("address", func(t *testing.T) { try(t, api.Limits{Address: slow, Credential: fast, Unknown: fast}, known, "<nil>") })
	t.Run("credential", func(t *testing.T) { try(t, api.Limits{Address: fast, Credential: slow, Unknown: fast}, known, "<nil>") })
	t.Run("unknown", func(t *testing.T) {
		try(t, api.Limits{Address: fast, Credential: fast, Unknown: slow}, stranger, "401 unauthenticated")
	})
}
