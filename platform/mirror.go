package platform

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/wire"
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

// read returns a piece of a metadata file for an agent, or ErrNotFound.
func (m *mirror) read(r wire.Range) ([]byte, error) { return readPiece(m.files, r.Path, r) }

// readPiece returns the piece r of the file called name: shorter than asked for
// at the file's end, or ErrNotFound.
func readPiece(files *blob.Dir, name string, r wire.Range) (b []byte, err error) {
	file, err := files.Open(name)
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrName) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b = make([]byte, r.Len)
	n, err := file.ReadAt(b, r.Off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}
