package client_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// site is a repository as a Fetcher; it counts what is asked for.
type site struct {
	t     *testing.T
	files map[string][]byte
	asked []string
	fail  map[string]error

	rootKeys, targetsKeys []repo.Signer
	snapshot, timestamp   *repo.KeyFile
	version               int64
}

func (s *site) Fetch(_ context.Context, name string, max int64) ([]byte, error) {
	s.asked = append(s.asked, name)
	if err := s.fail[name]; err != nil {
		return nil, err
	}
	b, ok := s.files[name]
	if !ok {
		return nil, client.ErrNotFound
	}
	if int64(len(b)) > max {
		return nil, errors.New("longer than the client wants")
	}
	return b, nil
}

func newKey(t *testing.T) *repo.KeyFile {
	t.Helper()
	k, err := repo.CreateKey(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, files: make(map[string][]byte), fail: make(map[string]error),
		rootKeys: []repo.Signer{newKey(t), newKey(t)}, targetsKeys: []repo.Signer{newKey(t)},
		snapshot: newKey(t), timestamp: newKey(t)}
	s.root(1)
	s.publish(1, now.Add(time.Hour))
	return s
}

func (s *site) must(b []byte, err error) []byte {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *site) root(version int64, alsoBy ...repo.Signer) {
	spec := repo.RootSpec{Version: version, Expires: now.Add(24 * time.Hour), RootThreshold: len(s.rootKeys), TargetsThreshold: 1,
		Snapshot: s.snapshot.Public(), Timestamp: s.timestamp.Public()}
	for _, k := range s.rootKeys {
		spec.RootKeys = append(spec.RootKeys, k.Public())
	}
	for _, k := range s.targetsKeys {
		spec.TargetsKeys = append(spec.TargetsKeys, k.Public())
	}
	doc := s.must(repo.NewRoot(spec))
	s.files[file(version, "root.json")] = s.must(repo.Sign(s.t.Context(), doc, append(slices.Clone(s.rootKeys), alsoBy...)...))
}

func file(version int64, name string) string {
	return string(cjson.Int(version).Canonical()) + "." + name
}

// publish makes version the version of targets, snapshot and timestamp.
func (s *site) publish(version int64, expires time.Time) {
	s.version = version
	ctx := s.t.Context()
	sign := func(role string, more cjson.Member, by ...repo.Signer) []byte {
		e := trust.Envelope{Signed: cjson.Object(
			cjson.F("_type", cjson.String(role)), cjson.F("spec_version", cjson.String("1.0.0")),
			cjson.F("version", cjson.Int(version)), cjson.F("expires", cjson.String(trust.FormatTime(expires))), more)}
		return s.must(repo.Sign(ctx, e.Encode(), by...))
	}
	meta := func(name string) cjson.Member {
		return cjson.F("meta", cjson.Object(cjson.F(name, cjson.Object(cjson.F("version", cjson.Int(version))))))
	}
	s.files[file(version, "targets.json")] = sign("targets", cjson.F("targets", cjson.Object()), s.targetsKeys...)
	s.files[file(version, "snapshot.json")] = sign("snapshot", meta("targets.json"), s.snapshot)
	s.files["timestamp.json"] = sign("timestamp", meta("snapshot.json"), s.timestamp)
}

func pinned(t *testing.T, s *site) *client.Folder {
	t.Helper()
	cache, err := client.OpenFolder(t.TempDir() + "/cache")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Pin(cache, s.files["1.root.json"], trust.Ed25519()); err != nil {
		t.Fatal(err)
	}
	return cache
}

func refresh(t *testing.T, cache client.Cache, s *site) (*trust.Trusted, error) {
	t.Helper()
	s.asked = nil
	return client.Refresh(t.Context(), cache, s, trust.Ed25519(), now)
}

func wantVersion(t *testing.T, cache client.Cache, s *site, want int64) {
	t.Helper()
	trusted, err := refresh(t, cache, s)
	if err != nil {
		t.Fatal(err)
	}
	if trusted.TargetsVersion() != want {
		t.Errorf("targets version %d, want %d", trusted.TargetsVersion(), want)
	}
}

func TestRefreshAsksForWhatChanged(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	wantVersion(t, cache, s, 1)
	if want := []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"}; !slices.Equal(s.asked, want) {
		t.Errorf("first refresh asked for %v, want %v", s.asked, want)
	}
	wantVersion(t, cache, s, 1)
	if want := []string{"2.root.json", "timestamp.json"}; !slices.Equal(s.asked, want) {
		t.Errorf("refresh without news asked for %v, want %v", s.asked, want)
	}
	s.publish(2, now.Add(time.Hour))
	wantVersion(t, cache, s, 2)
}

func TestRollbackIsNoticedAfterARestart(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	old := maps.Clone(s.files)
	s.publish(2, now.Add(time.Hour))
	wantVersion(t, cache, s, 2)
	s.files = old
	if _, err := refresh(t, cache, s); !errors.Is(err, trust.ErrRollback) {
		t.Fatalf("an older repository: %v, want ErrRollback", err)
	}
	trusted, err := client.Load(cache, trust.Ed25519(), now, false)
	if err != nil || trusted.TargetsVersion() != 2 {
		t.Errorf("what was believed before is gone: %v", err)
	}
}

func TestRollbackIsNoticedAfterAnInterruptedRefresh(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	wantVersion(t, cache, s, 1)
	old := maps.Clone(s.files)
	s.publish(2, now.Add(time.Hour))
	broken := errors.New("the line is cut")
	s.fail["2.snapshot.json"] = broken
	if _, err := refresh(t, cache, s); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	// The timestamp of version 2 was accepted, so version 1 is a rollback now.
	before := s.files
	s.files = old
	if _, err := refresh(t, cache, s); !errors.Is(err, trust.ErrRollback) {
		t.Fatalf("an older repository: %v, want ErrRollback", err)
	}
	s.files, s.fail = before, nil
	wantVersion(t, cache, s, 2)
}

func TestRootRotation(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	wantVersion(t, cache, s, 1)
	for version := int64(2); version <= 5; version++ {
		old := s.rootKeys
		s.rootKeys = []repo.Signer{newKey(t), newKey(t)}
		s.timestamp = newKey(t)
		s.root(version, old...)
	}
	s.publish(2, now.Add(time.Hour))
	trusted, err := refresh(t, cache, s)
	if err != nil {
		t.Fatal(err)
	}
	if trusted.Root().Version != 5 || trusted.TargetsVersion() != 2 {
		t.Errorf("root %d, targets %d", trusted.Root().Version, trusted.TargetsVersion())
	}
	wantVersion(t, cache, s, 2)
	if s.asked[0] != "6.root.json" {
		t.Errorf("the new root is not kept: asked for %s", s.asked[0])
	}
	// A root that only its own keys signed is refused and not kept.
	s.rootKeys = []repo.Signer{newKey(t), newKey(t)}
	s.root(6)
	if _, err := refresh(t, cache, s); !errors.Is(err, trust.ErrThreshold) {
		t.Fatalf("got %v, want ErrThreshold", err)
	}
	delete(s.files, "6.root.json")
	wantVersion(t, cache, s, 2)
}

func TestFetchFailures(t *testing.T) {
	broken := errors.New("the line is cut")
	for _, name := range []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"} {
		s := newSite(t)
		cache := pinned(t, s)
		s.fail[name] = broken
		if _, err := refresh(t, cache, s); !errors.Is(err, broken) {
			t.Errorf("%s fails: %v", name, err)
		}
		s.fail = nil
		wantVersion(t, cache, s, 1)
	}
	s := newSite(t)
	delete(s.files, "timestamp.json")
	if _, err := refresh(t, pinned(t, s), s); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("no timestamp: %v", err)
	}
}

func TestDamagedCacheHealsItself(t *testing.T) {
	for _, name := range []string{"timestamp.json", "snapshot.json", "targets.json"} {
		s := newSite(t)
		cache := pinned(t, s)
		wantVersion(t, cache, s, 1)
		if err := cache.Store(name, []byte(`{"signed":`)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Load(cache, trust.Ed25519(), now, false); !errors.Is(err, trust.ErrMalformed) {
			t.Errorf("damaged %s is loaded: %v", name, err)
		}
		wantVersion(t, cache, s, 1)
		if _, err := client.Load(cache, trust.Ed25519(), now, false); err != nil {
			t.Errorf("damaged %s was not replaced: %v", name, err)
		}
	}
}

func TestLoad(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	if _, err := client.Load(cache, trust.Ed25519(), now, true); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("before the first refresh: %v", err)
	}
	wantVersion(t, cache, s, 1)
	years := now.AddDate(5, 0, 0)
	if _, err := client.Load(cache, trust.Ed25519(), years, false); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("years later: %v, want ErrExpired", err)
	}
	if trusted, err := client.Load(cache, trust.Ed25519(), years, true); err != nil || trusted.TargetsVersion() != 1 {
		t.Errorf("years later, expiry ignored: %v", err)
	}
	// Power failed after the timestamp of version 2 was stored.
	s.publish(2, now.Add(time.Hour))
	s.fail["2.targets.json"] = errors.New("power failure")
	if _, err := refresh(t, cache, s); err == nil {
		t.Fatal("the refresh should have failed")
	}
	if trusted, err := client.Load(cache, trust.Ed25519(), now, true); err != nil || trusted.TargetsVersion() != 1 {
		t.Errorf("after an interrupted refresh: %v", err)
	}
	forged := newSite(t)
	if err := cache.Store("targets.json", forged.files["1.targets.json"]); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Load(cache, trust.Ed25519(), now, true); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("targets by foreign keys: %v, want ErrThreshold", err)
	}
}

func TestPinKeepsTheFirstRoot(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	other := newSite(t)
	if err := client.Pin(cache, other.files["1.root.json"], trust.Ed25519()); err != nil {
		t.Fatal(err)
	}
	if _, err := refresh(t, cache, other); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("another repository is believed: %v", err)
	}
	empty, err := client.OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Pin(empty, []byte("{}"), trust.Ed25519()); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("a root that is none is pinned: %v", err)
	}
	if _, err := refresh(t, empty, s); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("without a root: %v", err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir() + "/a/b"
	f, err := client.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := f.Store("root.json", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := f.Load("root.json"); err != nil || string(b) != text {
			t.Errorf("Load() = %q, %v", b, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".new-1", "a/b", "../root.json", "a\x00"} {
		if err := f.Store(name, nil); err == nil {
			t.Errorf("Store(%q) works", name)
		}
		if _, err := f.Load(name); err == nil || errors.Is(err, client.ErrNotFound) {
			t.Errorf("Load(%q): %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
