package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
)

const (
	askWithin = 60 * time.Second
	maxAnswer = 16 << 20
)

// Console is a signed-in user of the platform's REST API.
type Console struct {
	base   string
	client *http.Client
}

// SignIn signs in with a one-time password and sets a new one, as a person
// would the first time.
func SignIn(ctx context.Context, base, name, oneTime, password string) (*Console, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	c := &Console{base: base, client: &http.Client{Jar: jar, Timeout: askWithin}}
	if err := c.post(ctx, "/session", map[string]string{"name": name, "password": oneTime}, nil); err != nil {
		return nil, fmt.Errorf("sign in with the one-time password: %w", err)
	}
	if err := c.call(ctx, http.MethodPut, "/password", map[string]string{"current": oneTime, "new": password}, nil); err != nil {
		return nil, fmt.Errorf("set a new password: %w", err)
	}
	// A new password ends every session, this one too.
	if err := c.post(ctx, "/session", map[string]string{"name": name, "password": password}, nil); err != nil {
		return nil, fmt.Errorf("sign in with the new password: %w", err)
	}
	return c, nil
}

// CreateKey is "Create a Key for LivePatching".
func (c *Console) CreateKey(ctx context.Context, k platform.NewKey) (out platform.CreatedKey, err error) {
	return out, c.post(ctx, "/keys", k, &out)
}

// Keys lists the registration keys.
func (c *Console) Keys(ctx context.Context) (out []fleet.Key, err error) {
	return out, c.get(ctx, "/keys", &out)
}

// Activate is "Activate LivePatching".
func (c *Console) Activate(ctx context.Context, key string) (out platform.Install, err error) {
	return out, c.post(ctx, "/activate", map[string]string{"key_id": key}, &out)
}

// AddServer is "Add new server".
func (c *Console) AddServer(ctx context.Context, n platform.NewServer) (out platform.Install, err error) {
	return out, c.post(ctx, "/servers", n, &out)
}

// Tokens lists the one-use tokens.
func (c *Console) Tokens(ctx context.Context) (out []fleet.Token, err error) {
	return out, c.get(ctx, "/server-tokens", &out)
}

// Enrolments lists the machines that wait for a person.
func (c *Console) Enrolments(ctx context.Context) (out []fleet.EnrolmentRequest, err error) {
	return out, c.get(ctx, "/enrolments", &out)
}

// RefuseEnrolment says no to a machine.
func (c *Console) RefuseEnrolment(ctx context.Context, id string) error {
	return c.post(ctx, "/enrolments/"+url.PathEscape(id)+"/decision", map[string]bool{"approve": false}, nil)
}

// Servers lists the enrolled servers.
func (c *Console) Servers(ctx context.Context) ([]platform.ServerSummary, error) {
	return items[platform.ServerSummary](ctx, c, "/servers")
}

// Server returns everything about one server.
func (c *Console) Server(ctx context.Context, id string) (out platform.ServerDetail, err error) {
	return out, c.get(ctx, "/servers/"+url.PathEscape(id), &out)
}

// Scan is "Scan for vulnerabilities".
func (c *Console) Scan(ctx context.Context) (out fleet.Job, err error) {
	return out, c.post(ctx, "/scans", platform.ScanRequest{}, &out)
}

// Refresh is "Check for available Live Patches".
func (c *Console) Refresh(ctx context.Context) (out platform.CatalogueChange, err error) {
	return out, c.post(ctx, "/catalogue/refresh", nil, &out)
}

// Catalogue returns what the platform knows of the portal's live patches.
func (c *Console) Catalogue(ctx context.Context) (out platform.Catalogue, err error) {
	return out, c.get(ctx, "/catalogue", &out)
}

// ImportUpdates adds the partner's own metadata of ordinary package updates.
func (c *Console) ImportUpdates(ctx context.Context, updates ...fleet.Update) error {
	return c.post(ctx, "/updates", map[string]any{"updates": updates}, nil)
}

// Coverage lists what is true of a vulnerability on each server.
func (c *Console) Coverage(ctx context.Context, cve string) ([]fleet.Coverage, error) {
	return items[fleet.Coverage](ctx, c, "/coverage?cve="+url.QueryEscape(cve))
}

// Plan says what LivePatchFound would do.
func (c *Console) Plan(ctx context.Context, r platform.PatchRequest) (out platform.Plan, err error) {
	return out, c.post(ctx, "/livepatch/plan", r, &out)
}

// LivePatchFound is "LivePatch found vulnerabilities".
func (c *Console) LivePatchFound(ctx context.Context, r platform.PatchRequest) (out fleet.Job, err error) {
	return out, c.post(ctx, "/livepatch", r, &out)
}

// Revert takes a live patch off.
func (c *Console) Revert(ctx context.Context, r platform.RevertRequest) (out fleet.Job, err error) {
	return out, c.post(ctx, "/revert", r, &out)
}

// Job returns everything about one job.
func (c *Console) Job(ctx context.Context, id int64) (out platform.JobDetail, err error) {
	return out, c.get(ctx, "/jobs/"+strconv.FormatInt(id, 10), &out)
}

// Finish waits until a job has ended and returns it; a job that did not end
// well is an error that names its tasks' reasons.
func (c *Console) Finish(ctx context.Context, id int64) (platform.JobDetail, error) {
	var job platform.JobDetail
	err := Until(ctx, "job "+strconv.FormatInt(id, 10)+" has ended", func() (ok bool, err error) {
		job, err = c.Job(ctx, id)
		return job.State.Final(), err
	})
	var problems []error
	for _, t := range job.Tasks {
		if !t.State.Final() || (t.State == rollout.Failed || t.State == rollout.Refused) {
			problems = append(problems, fmt.Errorf("%s on %s: %s %s", t.Action, t.Hostname, t.State, t.Reason))
		}
	}
	return job, errors.Join(append([]error{err}, problems...)...)
}

// Page fetches a page as a browser that is signed in would, and returns its text.
func (c *Console) Page(ctx context.Context, path string) (string, error) {
	body, err := c.send(ctx, http.MethodGet, c.base+path, "", nil)
	return string(body), err
}

// Shows wants words on a page and says which page shows them.
func (c *Console) Shows(ctx context.Context, path string, words ...string) (string, error) {
	page, err := c.Page(ctx, path)
	if err != nil {
		return "", err
	}
	for _, w := range words {
		if !strings.Contains(page, w) {
			return "", fmt.Errorf("the page %s does not show %q", path, w)
		}
	}
	return fmt.Sprintf("the page %s%s shows %s", c.base, path, strings.Join(words, ", ")), nil
}

func (c *Console) get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

func (c *Console) post(ctx context.Context, path string, in, out any) error {
	return c.call(ctx, http.MethodPost, path, in, out)
}

// items reads a whole list, page after page.
func items[T any](ctx context.Context, c *Console, path string) ([]T, error) {
	var all []T
	for after := ""; ; {
		at := path
		if after != "" {
			separator := "?"
			if strings.Contains(path, "?") {
				separator = "&"
			}
			at += separator + "after=" + url.QueryEscape(after)
		}
		var page fleet.Page[T]
		if err := c.get(ctx, at, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

func (c *Console) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := c.send(ctx, method, c.base+"/api/v1"+path, "application/json", body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (c *Console) send(ctx context.Context, method, address, kind string, body []byte) (answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.500s", method, req.URL.Path, resp.Status, answer)
	}
	return answer, err
}
