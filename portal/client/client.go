// Package client is the portal's integration kit: the types of its REST
// interface and a client for it. A partner's platform, ours or another's, needs
// nothing else to talk to a portal; the repository of patches is read with any
// TUF client (package trust/client is ours, and a Client fetches for it).
//
// It must not know how the portal works inside.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	trustclient "livemend.dev/livemend/trust/client"
)

// maxAnswer bounds, in bytes, what is read of an answer.
const maxAnswer = 32 << 20

// ProblemPrefix is in front of the code in the type of a problem (RFC 9457).
const ProblemPrefix = "urn:livemend:portal:"

// Error is the portal's refusal.
type Error struct {
	Status int    // HTTP status
	Code   string // short and stable: not-found, key-refused, conflict, ...
	Detail string // for people
}

func (e *Error) Error() string {
	return fmt.Sprintf("the portal refused (%d %s): %s", e.Status, e.Code, e.Detail)
}

// Client talks to a portal with one credential. It is safe for concurrent use.
// Every call ends with its context; give it a deadline.
type Client struct {
	base       string
	credential string
	http       *http.Client
}

// New makes a client for the portal at baseURL. Redirects are not followed: a
// credential goes only where it was meant to. A nil hc means the default client.
func New(baseURL, credential string, hc *http.Client) *Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	own := *hc
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimRight(baseURL, "/"), credential: strings.TrimSpace(credential), http: &own}
}

// Repository returns the address of the portal's patch repository, with a
// slash at its end.
func (c *Client) Repository() string { return c.base + "/repo/" }

// CreateCustomer makes a customer.
func (c *Client) CreateCustomer(ctx context.Context, name string) (Customer, error) {
	return ask[Customer](ctx, c, http.MethodPost, "/customers", NewCustomer{Name: name})
}

// Customers returns the partner's customers, oldest first.
func (c *Client) Customers(ctx context.Context) ([]Customer, error) {
	return ask[[]Customer](ctx, c, http.MethodGet, "/customers", nil)
}

// CreateKey makes a registration key.
func (c *Client) CreateKey(ctx context.Context, key NewKey) (CreatedKey, error) {
	return ask[CreatedKey](ctx, c, http.MethodPost, "/keys", key)
}

// Keys returns a customer's registration keys, oldest first.
func (c *Client) Keys(ctx context.Context, customerID string) ([]Key, error) {
	return ask[[]Key](ctx, c, http.MethodGet, "/keys?customer_id="+url.QueryEscape(customerID), nil)
}

// SetKeyEnabled lets a key register servers, or stops it.
func (c *Client) SetKeyEnabled(ctx context.Context, id string, enabled bool) error {
	return c.call(ctx, http.MethodPatch, "/keys/"+url.PathEscape(id), KeyChange{Enabled: enabled}, nil)
}

// DeleteKey removes a key. Servers that registered with it stay.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/keys/"+url.PathEscape(id), nil, nil)
}

// Register gets a System ID. The same identity key gets the same System ID
// again and uses no second licence, so a call whose answer was lost may be
// repeated.
func (c *Client) Register(ctx context.Context, r Registration) (System, error) {
	return ask[System](ctx, c, http.MethodPost, "/systems", r.request())
}

// Systems returns a customer's systems, oldest first.
func (c *Client) Systems(ctx context.Context, customerID string) ([]System, error) {
	return ask[[]System](ctx, c, http.MethodGet, "/systems?customer_id="+url.QueryEscape(customerID), nil)
}

// RemoveSystem forgets a system and frees its licence.
func (c *Client) RemoveSystem(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/systems/"+url.PathEscape(id), nil, nil)
}

// Publish makes signed targets metadata the current one. Artifacts holds the
// new files under their target paths. It needs a vendor's credential. Nothing
// is published until everything was uploaded and checked, so a call that
// failed may be repeated.
func (c *Client) Publish(ctx context.Context, targets []byte, artifacts map[string][]byte) error {
	release := Release{Targets: targets, Artifacts: []Artifact{}}
	for _, path := range slices.Sorted(maps.Keys(artifacts)) {
		sum := sha256.Sum256(artifacts[path])
		name := hex.EncodeToString(sum[:])
		if err := c.send(ctx, http.MethodPut, "/artifacts/"+name, "application/octet-stream", artifacts[path], nil); err != nil {
			return fmt.Errorf("uploading %s: %w", path, err)
		}
		release.Artifacts = append(release.Artifacts, Artifact{Path: path, SHA256: name})
	}
	return c.call(ctx, http.MethodPost, "/releases", release, nil)
}

// Fetch returns a file of the patch repository, of at most max bytes, without
// showing the credential: the repository is public. It makes the Client a
// Fetcher for package trust/client.
func (c *Client) Fetch(ctx context.Context, name string, max int64) (content []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Repository()+name, nil)
	if err != nil {
		return nil, fmt.Errorf("the portal's address cannot be used: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reaching the portal's repository: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s in the portal's repository: %w", name, trustclient.ErrNotFound)
	default:
		return nil, fmt.Errorf("the portal's repository answered %s for %s; ask again later", resp.Status, name)
	}
	content, err = io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s from the portal's repository: %w", name, err)
	}
	if int64(len(content)) > max {
		return nil, fmt.Errorf("%s in the portal's repository is longer than %d bytes", name, max)
	}
	return content, nil
}

// ask calls and returns the answer.
func ask[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, in, &out)
	return out, err
}

// call sends in as JSON, unless it is nil, and reads the answer into out,
// unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	if in == nil {
		return c.send(ctx, method, path, "", nil, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	return c.send(ctx, method, path, "application/json", body, out)
}

func (c *Client) send(ctx context.Context, method, path, kind string, body []byte, out any) (err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the portal's address cannot be used: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.credential)
	req.Header.Set("Accept", "application/json")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("reaching the portal: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("reading the portal's answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("the portal's answer is longer than %d bytes", maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("decoding the portal's answer: %w", err)
	}
	return nil
}

// refusal reads a problem document, and makes do without one: a proxy in
// between may answer as well.
func refusal(resp *http.Response, answer []byte) error {
	var problem struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	e := &Error{Status: resp.StatusCode, Code: "http", Detail: http.StatusText(resp.StatusCode)}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(answer, &problem) != nil {
		return e
	}
	if code, ok := strings.CutPrefix(problem.Type, ProblemPrefix); ok {
		e.Code = code
	}
	if problem.Detail != "" {
		e.Detail = problem.Detail
	}
	return e
}
