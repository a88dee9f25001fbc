// Package client refreshes a TUF repository: it asks a Fetcher for the files
// that package trust wants next, and keeps each one durably as soon as it is
// accepted. It decides nothing about trust itself and must not know about HTTP
// or the channel. The agent links it: no fmt, no encoding/json.
package client

import (
	"context"
	"errors"
	"strconv"
	"time"

	"livemend.dev/livemend/trust"
)

// ErrNotFound says that a Fetcher or a Cache has no file of that name.
var ErrNotFound = errors.New("no such file")

// The names in a Cache.
const (
	rootFile      = "root.json"
	timestampFile = "timestamp.json"
	snapshotFile  = "snapshot.json"
	targetsFile   = "targets.json"
)

// Fetcher gets a metadata file by its name in the repository, such as
// 2.root.json or timestamp.json. It returns an error instead of more than max
// bytes, and an error that wraps ErrNotFound when the repository has no such
// file.
type Fetcher interface {
	Fetch(ctx context.Context, name string, max int64) ([]byte, error)
}

// Cache keeps the accepted files: root.json, timestamp.json, snapshot.json and
// targets.json. Load's error wraps ErrNotFound when nothing is stored. Store
// returns after the bytes are durable. One Refresh at a time may use a Cache.
type Cache interface {
	Load(name string) ([]byte, error)
	Store(name string, b []byte) error
}

// Pin stores the first root of a repository after it verified itself; the
// caller trusts it for reasons of its own, such as a pinned digest. It changes
// nothing when the cache holds a root already: that one may be newer.
func Pin(cache Cache, root []byte, schemes trust.Schemes) error {
	if _, err := cache.Load(rootFile); !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := trust.ParseRoot(root, schemes); err != nil {
		return err
	}
	return cache.Store(rootFile, root)
}

// Refresh runs the TUF client workflow (specification 1.0, section 5) once and
// returns what is to be believed now. Every accepted file is stored before the
// next one is asked for, so a repository that goes back is noticed after a
// restart too. When it fails, what was believed before stays stored.
func Refresh(ctx context.Context, cache Cache, fetch Fetcher, schemes trust.Schemes, now time.Time) (*trust.Trusted, error) {
	r := refresh{ctx: ctx, cache: cache, fetch: fetch, now: now}
	root, err := cache.Load(rootFile)
	if err != nil {
		return nil, err
	}
	if r.t, err = trust.NewTrusted(root, schemes); err != nil {
		return nil, err
	}
	for _, step := range []func() error{r.root, r.timestamp, r.snapshot, r.targets} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r.t, nil
}

type refresh struct {
	ctx   context.Context
	cache Cache
	fetch Fetcher
	t     *trust.Trusted
	now   time.Time
}

func (r *refresh) root() error {
	for range trust.MaxRotations {
		name := strconv.FormatInt(r.t.Root().Version+1, 10) + "." + rootFile
		b, err := r.fetch.Fetch(r.ctx, name, trust.MaxRoot)
		if errors.Is(err, ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if err := r.t.UpdateRoot(b); err != nil {
			return err
		}
		if err := r.cache.Store(rootFile, b); err != nil {
			return err
		}
	}
	return r.t.CheckRoot(r.now)
}

func (r *refresh) timestamp() error {
	if _, err := r.recall(timestampFile, r.t.RecallTimestamp); err != nil {
		return err
	}
	b, err := r.fetch.Fetch(r.ctx, timestampFile, trust.MaxTimestamp)
	if err != nil {
		return err
	}
	changed, err := r.t.UpdateTimestamp(b, r.now)
	if err != nil || !changed {
		return err
	}
	return r.cache.Store(timestampFile, b)
}

func (r *refresh) snapshot() error {
	stored, err := r.recall(snapshotFile, r.t.RecallSnapshot)
	if err != nil {
		return err
	}
	if stored != nil && r.t.UpdateSnapshot(stored, r.now) == nil {
		return nil
	}
	b, err := r.fetch.Fetch(r.ctx, r.t.SnapshotName(), r.t.SnapshotLimit())
	if err != nil {
		return err
	}
	if err := r.t.UpdateSnapshot(b, r.now); err != nil {
		return err
	}
	return r.cache.Store(snapshotFile, b)
}

func (r *refresh) targets() error {
	stored, err := r.recall(targetsFile, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	if stored != nil && r.t.UpdateTargets(stored, r.now) == nil {
		return nil
	}
	b, err := r.fetch.Fetch(r.ctx, r.t.TargetsName(), r.t.TargetsLimit())
	if err != nil {
		return err
	}
	if err := r.t.UpdateTargets(b, r.now); err != nil {
		return err
	}
	return r.cache.Store(targetsFile, b)
}

// recall loads a stored file and gives it to accept. A stored file that does
// not verify any more counts as absent: its keys were replaced, or a disk
// damaged it, and holding on to it would end every later refresh.
func (r *refresh) recall(name string, accept func([]byte) error) ([]byte, error) {
	b, err := r.cache.Load(name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if accept(b) != nil {
		return nil, nil
	}
	return b, nil
}

// Load verifies what is stored, without a network.
//
// With allowExpired it takes the stored targets metadata by the signatures of
// the stored root's targets keys alone, so that it also works after a power
// failure in the middle of a refresh, and months later: it is for verifying
// again what was admitted before, never for admitting something new.
func Load(cache Cache, schemes trust.Schemes, now time.Time, allowExpired bool) (*trust.Trusted, error) {
	load := func(name string, accept func([]byte) error) error {
		b, err := cache.Load(name)
		if err != nil {
			return err
		}
		return accept(b)
	}
	var t *trust.Trusted
	err := load(rootFile, func(b []byte) (err error) {
		t, err = trust.NewTrusted(b, schemes)
		return err
	})
	if err != nil {
		return nil, err
	}
	if allowExpired {
		if err := load(targetsFile, t.RecallTargets); err != nil {
			return nil, err
		}
		return t, nil
	}
	if err := load(timestampFile, func(b []byte) error {
		_, err := t.UpdateTimestamp(b, now)
		return err
	}); err != nil {
		return nil, err
	}
	if err := load(snapshotFile, func(b []byte) error { return t.UpdateSnapshot(b, now) }); err != nil {
		return nil, err
	}
	if err := load(targetsFile, func(b []byte) error { return t.UpdateTargets(b, now) }); err != nil {
		return nil, err
	}
	return t, nil
}
