// Package client refreshes a TUF repository: it asks a Fetcher for the files
// that package trust wants next, and keeps each one durably as soon as it is
// accepted. It decides nothing about trust itself and must not know about HTTP
// or the channel. The agent links it: no fmt, no encoding/json.
package client

import (
	"context"
	"errors"
	"time"

	"livemend.dev/livemend/trust"
)

// ErrNotFound says that a Fetcher or Cache has no file of that name.
var ErrNotFound = errors.New("no such file")

// Fetcher gets a metadata file by its name in the repository, such as
// 2.root.json or timestamp.json. It returns at most max bytes, or an error; an
// error that wraps ErrNotFound when the repository has no such file.
type Fetcher interface {
	Fetch(ctx context.Context, name string, max int64) ([]byte, error)
}

// Cache keeps the accepted files: root.json, timestamp.json, snapshot.json and
// targets.json. Load's error wraps ErrNotFound when nothing is stored. Store
// returns after the bytes are durable.
type Cache interface {
	Load(name string) ([]byte, error)
	Store(name string, b []byte) error
}

var errPending = errors.New("not built yet")

// Pin stores the first root of a repository. It changes nothing when the cache
// holds a root already.
func Pin(cache Cache, root []byte, schemes trust.Schemes) error { return errPending }

// Refresh runs the TUF client workflow once and returns what is to be believed now.
func Refresh(ctx context.Context, cache Cache, fetch Fetcher, schemes trust.Schemes, now time.Time) (*trust.Trusted, error) {
	return nil, errPending
}

// Load verifies what is stored, without a network. With allowExpired it accepts
// metadata that is past its time: for what was admitted before.
func Load(cache Cache, schemes trust.Schemes, now time.Time, allowExpired bool) (*trust.Trusted, error) {
	return nil, errPending
}

// Folder is a Cache in a folder of its own.
type Folder struct{ dir string }

// OpenFolder makes the folder when it is missing.
func OpenFolder(dir string) (*Folder, error) { return nil, errPending }

// Load implements Cache.
func (f *Folder) Load(name string) ([]byte, error) { return nil, errPending }

// Store implements Cache.
func (f *Folder) Store(name string, b []byte) error { return errPending }
