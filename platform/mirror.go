package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

// mirror is the verified copy of the repository's metadata. As a client.Cache it
// is what the next refresh starts from; beside that it keeps every accepted
// file under its name in the repository, for agents.
type mirror struct {
	cache *client.Folder
	files *blob.Dir
}

const timestampName = "timestamp.json"

// pin trusts the first root, unless a newer one is trusted already.
func (m *mirror) pin(root []byte, version int64) error {
	if err := client.Pin(m.cache, root, trust.Ed25519()); err != nil {
		return err
	}
	return m.keep(strconv.FormatInt(version, 10)+".root.json", root)
}

func (m *mirror) keep(name string, b []byte) error {
	return m.files.Put(context.Background(), name, bytes.NewReader(b), blob.Want{Max: int64(len(b))})
}

// Load implements client.Cache.
func (m *mirror) Load(name string) ([]byte, error) { return m.cache.Load(name) }

// Store implements client.Cache. Agents get a file before anything points at
// it: the timestamp is shown to them by publish.
func (m *mirror) Store(name string, b []byte) error {
	if name != timestampName {
		e, err := trust.ParseEnvelope(b, trust.MaxTargets)
		if err != nil {
			return err
		}
		c := cjson.Fields(e.Signed)
		version := c.Int("version")
		if err := c.Err(); err != nil {
			return err
		}
		if err := m.keep(strconv.FormatInt(version, 10)+"."+name, b); err != nil {
			return err
		}
	}
	return m.cache.Store(name, b)
}

// publish shows the accepted timestamp to agents, after everything it leads to
// is there.
func (m *mirror) publish() error {
	b, err := m.cache.Load(timestampName)
	if err != nil {
		return err
	}
	return m.keep(timestampName, b)
}

// read returns a metadata file for an agent, or ErrNotFound.
func (m *mirror) read(name string) (b []byte, err error) {
	file, err := m.files.Open(name)
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrName) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return io.ReadAll(io.LimitReader(file, trust.MaxTargets))
}

// webRepository fetches from the portal's repository. It implements
// client.Fetcher.
type webRepository struct {
	base string // with a slash at the end
	http *http.Client
}

// Fetch implements client.Fetcher.
func (w webRepository) Fetch(ctx context.Context, name string, max int64) ([]byte, error) {
	body, err := w.open(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, max+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("fetching %s: %w", name, err)
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%s has more than %d bytes", name, max)
	}
	return b, nil
}

// open starts a download. The caller bounds what it reads and closes it.
func (w webRepository) open(ctx context.Context, name string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	err = fmt.Errorf("fetching %s: the portal answered %s", name, resp.Status)
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%s: %w", name, client.ErrNotFound)
	}
	return nil, errors.Join(err, resp.Body.Close())
}
