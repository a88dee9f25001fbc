package client_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
)

const later = "2026-11-23T13:00:00Z"

// delegate lets the targets role trust ../team, by key, with the target user/x.
func (s *site) delegate(version int64, key repo.Signer, signed ...repo.Signer) {
	s.t.Helper()
	sign := func(role string, by []repo.Signer, more ...cjson.Member) []byte {
		e := trust.Envelope{Signed: cjson.Object(append(more,
			cjson.F("_type", cjson.String(role)), cjson.F("spec_version", cjson.String("1.0.0")),
			cjson.F("version", cjson.Int(version)), cjson.F("expires", cjson.String(later)))...)}
		return s.must(repo.Sign(s.t.Context(), e.Encode(), by...))
	}
	versioned := cjson.Object(cjson.F("version", cjson.Int(version)))
	id := repo.KeyID(key.Public())
	target := trust.Target{SHA256: strings.Repeat("0", 64)}
	s.files[file(version, "..%2Fteam.json")] = sign("targets", signed, cjson.F("targets", cjson.Object(cjson.F("user/x", target.Value()))))
	s.files[file(version, "targets.json")] = sign("targets", s.targetsKeys,
		cjson.F("targets", cjson.Object()),
		cjson.F("delegations", cjson.Object(
			cjson.F("keys", cjson.Object(cjson.F(id, key.Public().Value()))),
			cjson.F("roles", cjson.Array(cjson.Object(
				cjson.F("name", cjson.String("../team")), cjson.F("terminating", cjson.Bool(true)),
				cjson.F("keyids", cjson.Strings([]string{id})), cjson.F("threshold", cjson.Int(1)),
				cjson.F("paths", cjson.Strings([]string{"user/*"}))))))))
	s.files[file(version, "snapshot.json")] = sign("snapshot", []repo.Signer{s.snapshot},
		cjson.F("meta", cjson.Object(cjson.F("targets.json", versioned), cjson.F("../team.json", versioned))))
	s.files["timestamp.json"] = sign("timestamp", []repo.Signer{s.timestamp},
		cjson.F("meta", cjson.Object(cjson.F("snapshot.json", versioned))))
}

func find(t *testing.T, cache client.Cache, s *site, path string) error {
	t.Helper()
	trusted, err := refresh(t, cache, s)
	if err != nil {
		t.Fatal(err)
	}
	s.asked = nil
	target, err := client.Find(t.Context(), cache, s, trusted, path, now)
	if err == nil && target.Path != path {
		t.Errorf("found %q, want %q", target.Path, path)
	}
	return err
}

func TestFindStoresDelegatedRoles(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	key := newKey(t)
	s.delegate(1, key, key)
	if err := find(t, cache, s, "user/x"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.asked, []string{"1...%2Fteam.json"}) {
		t.Errorf("asked for %v", s.asked)
	}
	if _, err := cache.Load("%2E.%2Fteam.json"); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]error{"user/x": nil, "user/y": trust.ErrNoTarget, "elsewhere": trust.ErrNoTarget} {
		if err := find(t, cache, s, path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if len(s.asked) > 0 {
			t.Errorf("%s: what is stored is asked for again: %v", path, s.asked)
		}
	}
	// A damaged file is replaced.
	if err := cache.Store("%2E.%2Fteam.json", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := find(t, cache, s, "user/x"); err != nil || len(s.asked) != 1 {
		t.Errorf("asked for %v, %v", s.asked, err)
	}
}

func TestFindVerifiesWhatIsStored(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	first, second := newKey(t), newKey(t)
	s.delegate(1, first, first)
	if err := find(t, cache, s, "user/x"); err != nil {
		t.Fatal(err)
	}
	// The role's version stays; only who may sign for it changes.
	stored := s.files["1...%2Fteam.json"]
	s.delegate(2, second, second)
	s.files["2...%2Fteam.json"] = stored
	if err := find(t, cache, s, "user/x"); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("by the keys of the past: %v, want ErrThreshold", err)
	}
	s.delegate(3, second, second)
	if err := find(t, cache, s, "user/x"); err != nil {
		t.Error(err)
	}
}

func TestFindFailsWhenARoleCanNotBeHad(t *testing.T) {
	s := newSite(t)
	cache := pinned(t, s)
	key := newKey(t)
	s.delegate(1, key, key)
	broken := errors.New("the line is cut")
	s.fail["1...%2Fteam.json"] = broken
	if err := find(t, cache, s, "user/x"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	s.fail = nil
	delete(s.files, "1...%2Fteam.json")
	if err := find(t, cache, s, "user/x"); !errors.Is(err, client.ErrNotFound) || errors.Is(err, trust.ErrNoTarget) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	full := errors.New("no space left")
	s.delegate(2, key, key)
	trusted, err := refresh(t, cache, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Find(t.Context(), brokenCache{full}, s, trusted, "user/x", now); !errors.Is(err, full) {
		t.Errorf("a cache that fails: %v", err)
	}
}

// brokenCache has nothing and stores nothing.
type brokenCache struct{ err error }

func (c brokenCache) Load(string) ([]byte, error) { return nil, client.ErrNotFound }

func (c brokenCache) Store(string, []byte) error { return c.err }
