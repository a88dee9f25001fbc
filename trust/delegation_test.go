package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func TestDelegatedRoleIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		want error
		edit func(g *graph)
	}{
		{"unsigned", trust.ErrThreshold, func(g *graph) { g.roles["A"].signers = nil }},
		{"signed by a stranger", trust.ErrThreshold, func(g *graph) { g.roles["A"].signers = keys("stranger") }},
		{"signed by the targets keys", trust.ErrThreshold, func(g *graph) { g.roles["A"].signers = keys("t1", "t2") }},
		{"one of two", trust.ErrThreshold, func(g *graph) { g.roles["A"].signers = keys("a1") }},
		{"one key under two ids", trust.ErrThreshold, func(g *graph) {
			twin := newKey("a1")
			twin.id = "id-of-a2"
			g.targets.value = set(g.targets.value, twin.public().Value(), "delegations", "keys", twin.id)
			g.roles["A"].signers = []key{newKey("a1"), twin}
		}},
		{"one key of two schemes", trust.ErrScheme, func(g *graph) {
			twin := newKey("a1")
			twin.id = "id-of-a2"
			public := twin.public()
			public.Scheme = "another"
			g.targets.value = set(g.targets.value, public.Value(), "delegations", "keys", twin.id)
			g.roles["A"].signers = []key{newKey("a1"), twin}
		}},
		{"expired", trust.ErrExpired, func(g *graph) { g.roles["A"].value = set(g.roles["A"].value, expired, "expires") }},
		{"another role's document", trust.ErrMalformed, func(g *graph) {
			g.roles["A"].value = set(g.roles["A"].value, cjson.String("snapshot"), "_type")
		}},
		{"another specification", trust.ErrMalformed, func(g *graph) {
			g.roles["A"].value = set(g.roles["A"].value, cjson.String("2.0"), "spec_version")
		}},
		{"changed, same length", trust.ErrHash, func(g *graph) { g.roles["A"].tamper = changeByte("user/x", "user/y") }},
		{"cut", trust.ErrLength, func(g *graph) { g.roles["A"].tamper = func(b []byte) []byte { return b[:len(b)-1] } }},
		{"longer", trust.ErrLength, func(g *graph) { g.roles["A"].tamper = func(b []byte) []byte { return append(b, ' ') } }},
		{"target outside the folder", trust.ErrMalformed, func(g *graph) { g.give("A", "../x", content) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGraph(edge{from: "targets", to: "A", keys: keys("a1", "a2"), threshold: 2}, edge{from: "targets", to: "B"})
			g.give("A", "user/x", content)
			g.give("B", "user/x", content)
			tt.edit(g)
			// The pattern * has no slash.
			d := edge{from: "targets", to: "A", keys: keys("a1", "a2"), threshold: 2, paths: []string{"user/*"}}
			b := edge{from: "targets", to: "B", paths: []string{"user/*"}}
			g.targets.value = set(g.targets.value, cjson.Array(d.value(), b.value()), "delegations", "roles")
			trusted := g.trusted(t)
			_, visited, err := g.search(t, trusted, "user/x")
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if len(visited) != 1 {
				t.Errorf("after the refusal of A the search went on: %v", visited)
			}
		})
	}
}

func TestDelegatedRoleOfAnotherVersion(t *testing.T) {
	g := newGraph(edge{from: "targets", to: "A"})
	g.snapshot.value = set(g.snapshot.value, cjson.Object(cjson.F("version", cjson.Int(2))), "meta", "A.json")
	g.link()
	trusted := mustTrust(t, g.world)
	s, err := trusted.Search("x")
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := s.Next()
	if err != nil || want.Name != "2.A.json" || want.Stored != "A.json" || want.Limit != trust.MaxTargets {
		t.Errorf("wanted %+v, %v", want, err)
	}
	if err := s.Update(g.roles["A"].signed(), now); !errors.Is(err, trust.ErrVersion) {
		t.Fatalf("got %v, want ErrVersion", err)
	}
	if again, more, err := s.Next(); again != want || !more || err != nil {
		t.Errorf("after a refusal %+v is wanted, %v", again, err)
	}
	g.roles["A"].value = set(g.roles["A"].value, cjson.Int(2), "version")
	if err := s.Update(g.roles["A"].signed(), now); err != nil {
		t.Fatalf("the announced version: %v", err)
	}
	if _, more, _ := s.Next(); more {
		t.Error("the search goes on")
	}
	if err := s.Update(g.roles["A"].signed(), now); !errors.Is(err, trust.ErrOrder) {
		t.Errorf("an update that nobody asked for: %v", err)
	}
}

func TestDelegatedRoleThatNoSnapshotLists(t *testing.T) {
	g := newGraph(edge{from: "targets", to: "A"})
	g.link()
	s, err := mustTrust(t, g.world).Search("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Next(); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("got %v, want ErrMalformed", err)
	}
}

// TestSharedRoleIsVerifiedForEachDelegator gives one role two delegators that
// name different keys.
func TestSharedRoleIsVerifiedForEachDelegator(t *testing.T) {
	g := newGraph(
		edge{from: "targets", to: "A", paths: []string{"a/*"}},
		edge{from: "targets", to: "B", paths: []string{"b/*"}},
		edge{from: "A", to: "C", paths: []string{"a/*", "b/*"}},
		edge{from: "B", to: "C", paths: []string{"a/*", "b/*"}, keys: keys("others")},
	)
	g.give("C", "a/x", content)
	g.give("C", "b/x", content)
	trusted := g.trusted(t)
	if _, _, err := g.search(t, trusted, "a/x"); err != nil {
		t.Errorf("by the delegator whose key signed: %v", err)
	}
	if _, _, err := g.search(t, trusted, "b/x"); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("by the delegator whose key did not sign: %v, want ErrThreshold", err)
	}
}

func TestDelegationsThatAreRefused(t *testing.T) {
	good := edge{from: "targets", to: "A"}.value()
	bins := func(edit ...cjson.Member) cjson.Value {
		return cjson.Object(append([]cjson.Member{
			cjson.F("keyids", cjson.Strings([]string{"id-of-A"})), cjson.F("threshold", cjson.Int(1)),
			cjson.F("bit_length", cjson.Int(8)), cjson.F("name_prefix", cjson.String("bin"))}, edit...)...)
	}
	var many []cjson.Value
	for i := range trust.MaxDelegations + 1 {
		many = append(many, edge{to: fmt.Sprintf("role%d", i)}.value())
	}
	patterns := strings.Split(strings.Repeat("x,", trust.MaxPatterns/2)+"x", ",")
	named := func(roles ...cjson.Value) []cjson.Member {
		return []cjson.Member{cjson.F("roles", cjson.Array(roles...))}
	}
	text := func(s string) cjson.Value { return cjson.String(s) }
	for _, tt := range []struct {
		name string
		d    []cjson.Member
		ok   bool
	}{
		{"named", named(good), true},
		{"none", named(), true},
		{"hash bins", []cjson.Member{cjson.F("succinct_roles", bins())}, true},
		{"unknown fields", append(named(set(good, cjson.Bool(true), "x-new")), cjson.F("x-other", cjson.Array())), true},
		{"without terminating", named(drop(good, "terminating")), true},
		{"neither roles nor bins", nil, false},
		{"both", append(named(good), cjson.F("succinct_roles", bins())), false},
		{"the same role twice", named(good, good), false},
		{"no name", named(set(good, text(""), "name")), false},
		{"the name of root", named(set(good, text("root"), "name")), false},
		{"the name of timestamp", named(set(good, text("timestamp"), "name")), false},
		{"the name of snapshot", named(set(good, text("snapshot"), "name")), false},
		{"the name of targets", named(set(good, text("targets"), "name")), false},
		{"a name with a zero byte", named(set(good, text("a\x00b"), "name")), false},
		{"a long name", named(set(good, text(strings.Repeat("n", trust.MaxRoleName+1)), "name")), false},
		{"threshold 0", named(set(good, cjson.Int(0), "threshold")), false},
		{"threshold missing", named(drop(good, "threshold")), false},
		{"keyid twice", named(set(good, cjson.Strings([]string{"a", "a"}), "keyids")), false},
		{"paths and hashes", named(set(good, cjson.Strings([]string{"0"}), "path_hash_prefixes")), false},
		{"neither paths nor hashes", named(drop(good, "paths")), false},
		{"terminating as text", named(set(good, text("yes"), "terminating")), false},
		{"pattern of two meanings", named(set(good, cjson.Strings([]string{"[^a]"}), "paths")), false},
		{"empty pattern", named(set(good, cjson.Strings([]string{""}), "paths")), false},
		{"hash prefix in upper case", named(set(drop(good, "paths"), cjson.Strings([]string{"A"}), "path_hash_prefixes")), false},
		{"empty hash prefix", named(set(drop(good, "paths"), cjson.Strings([]string{""}), "path_hash_prefixes")), false},
		{"hash prefix too long", named(set(drop(good, "paths"), cjson.Strings([]string{strings.Repeat("0", 65)}), "path_hash_prefixes")), false},
		{"too many roles", named(many...), false},
		{"too many patterns", named(edge{to: "A", paths: patterns}.value(), edge{to: "B", paths: patterns}.value()), false},
		{"no bits", []cjson.Member{cjson.F("succinct_roles", bins(cjson.F("bit_length", cjson.Int(0))))}, false},
		{"more bits than bins may have", []cjson.Member{cjson.F("succinct_roles", bins(cjson.F("bit_length", cjson.Int(33))))}, false},
		{"bins without a name", []cjson.Member{cjson.F("succinct_roles", bins(cjson.F("name_prefix", text(""))))}, false},
		{"roles is no list", []cjson.Member{cjson.F("roles", cjson.Object())}, false},
		{"a role is no object", named(cjson.Int(1)), false},
	} {
		w := newWorld()
		w.targets.value = set(w.targets.value, cjson.Object(append(tt.d, cjson.F("keys", cjson.Object()))...), "delegations")
		trusted := mustTrust(t, w)
		if _, err := trusted.Target("user/a.lmp"); err != nil {
			t.Errorf("%s: who does not follow delegations minds them: %v", tt.name, err)
		}
		err := trusted.CheckDelegations()
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, trust.ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := trusted.Search("elsewhere"); tt.ok != (err == nil) {
			t.Errorf("%s: a search starts with %v", tt.name, err)
		}
	}
}

func TestKeysOfUnknownSchemesDoNoHarm(t *testing.T) {
	w := newWorld()
	strange := cjson.Object(
		cjson.F("keytype", cjson.String("oidc")), cjson.F("scheme", cjson.String("fulcio")),
		cjson.F("keyval", cjson.Object(cjson.F("identity", cjson.String("somebody")))))
	w.roots[0].value = set(w.roots[0].value, strange, "keys", "id-of-somebody")
	w.roots[0].value = set(w.roots[0].value, cjson.Strings([]string{"id-of-t1", "id-of-t2", "id-of-somebody"}), "roles", "targets", "keyids")
	mustTrust(t, w)
	somebody := newKey("somebody")
	w.targets.signers = []key{newKey("t1"), somebody}
	if _, err := w.run(trust.Ed25519()); !errors.Is(err, trust.ErrScheme) {
		t.Errorf("a key of an unknown scheme counts: %v", err)
	}
	w.roots[0].value = set(w.roots[0].value, cjson.String("ed25519"), "keys", "id-of-somebody", "scheme")
	if _, err := w.run(trust.Ed25519()); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("a key of a known scheme without its value: %v", err)
	}
}

// FuzzSearch reads anything as a delegated role and as delegations.
func FuzzSearch(f *testing.F) {
	g := newGraph(edge{from: "targets", to: "A"}, edge{from: "A", to: "B", prefixes: []string{"0", "12"}})
	trusted := g.trusted(f)
	for _, name := range []string{"A", "B"} {
		f.Add(g.roles[name].signed(), "x")
	}
	f.Add([]byte(`{"keys":{},"succinct_roles":{"keyids":[],"threshold":1,"bit_length":8,"name_prefix":"bin"}}`), "x")
	f.Add([]byte(`{"keys":{},"roles":[{"name":"r","keyids":[],"threshold":1,"paths":["*/[a-z]?"],"terminating":true}]}`), "a/bc")
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		s, err := trusted.Search(path)
		if err != nil {
			t.Fatal(err)
		}
		want, more, err := s.Next()
		if err != nil || !more {
			return // the path does not match *
		}
		if err := s.Update(b, now); err == nil && !bytes.Equal(signedPart(t, b), signedPart(t, g.roles["A"].signed())) {
			t.Fatalf("%s is accepted as metadata of %s", b, want.Role)
		} else if trust.Class(err) == "other" {
			t.Fatalf("an undocumented error: %v", err)
		}
		d, err := cjson.Parse(b)
		if err != nil || d.Kind() != cjson.Map {
			return
		}
		w := newWorld()
		w.targets.value = set(w.targets.value, d, "delegations")
		again, err := w.run(trust.Ed25519())
		if err != nil {
			return // over a limit on the whole document
		}
		if s, err = again.Search(path); trust.Class(err) == "other" {
			t.Fatalf("an undocumented error: %v", err)
		} else if err == nil {
			if _, _, err := s.Next(); trust.Class(err) == "other" {
				t.Fatalf("an undocumented error: %v", err)
			}
		}
	})
}
