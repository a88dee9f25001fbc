package main

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

// delegated returns which roles were asked for after the four at the top.
func delegated(t *testing.T, asked []string) string {
	t.Helper()
	var roles []string
	for _, name := range asked[4:] {
		role, ok := strings.CutPrefix(strings.TrimSuffix(name, ".json"), "1.")
		if !ok {
			t.Errorf("asked for %s", name)
		}
		roles = append(roles, role)
	}
	return strings.Join(roles, " ")
}

func TestOrderOfTraversal(t *testing.T) {
	type edge struct {
		from, to    string
		terminating bool
		paths       string
	}
	for _, tt := range []struct {
		name  string
		edges []edge
		want  string
	}{
		{"one", []edge{{"targets", "A", false, "*"}}, "A"},
		{"two", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}}, "A B"},
		{"two levels", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"B", "C", false, "*"}}, "A B C"},
		{"depth first", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"A", "C", false, "*"}, {"A", "D", false, "*"}}, "A C D B"},
		{"depth first, three levels", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"A", "C", false, "*"}, {"C", "D", false, "*"}}, "A C D B"},
		{"terminating", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"A", "C", true, "*"}, {"A", "D", false, "*"}}, "A C"},
		{"below terminating", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"A", "C", true, "*"}, {"C", "D", false, "*"}}, "A C D"},
		{"path of no interest", []edge{{"targets", "A", false, "*.py"}, {"targets", "B", false, "*"}, {"A", "C", false, "*"}}, "B"},
		{"path of no interest, three levels", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"A", "C", false, "*.py"}, {"C", "D", false, "*"}}, "A B"},
		{"cycle", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"B", "C", false, "*"}, {"C", "D", false, "*"}, {"D", "B", false, "*"}}, "A B C D"},
		{"two that delegate to a third", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"B", "C", false, "*"}, {"A", "C", false, "*"}}, "A C B"},
		{"the same, other paths", []edge{{"targets", "A", false, "*"}, {"targets", "B", false, "*"}, {"B", "C", false, "*"}, {"A", "C", false, "*.py"}}, "A B C"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepository(t)
			for _, e := range tt.edges {
				r.delegate(e.from, delegation{name: e.to, terminating: e.terminating, paths: []string{e.paths}})
			}
			// Everything has its first version, as after one publication.
			r.published = map[string][][]byte{"root": r.published["root"]}
			r.publish(r.all()...)
			u := started(t, r)
			u.refused(u.download(r, "missingpath"), trust.ErrNoTarget)
			asked := r.requests()
			if got := delegated(t, asked); got != tt.want {
				t.Errorf("read %q, want %q", got, tt.want)
			}
			stored := []string{"root 1", "timestamp 1", "snapshot 1", "targets 1"}
			for _, role := range strings.Fields(tt.want) {
				stored = append(stored, role+" 1")
			}
			u.wantTrusted(stored...)
			// What is stored is not asked for again.
			u.refused(u.download(r, "missingpath"), trust.ErrNoTarget)
			if got := r.requests(); !slices.Equal(got, []string{"2.root.json", "timestamp.json"}) {
				t.Errorf("the second time it asked for %v", got)
			}
		})
	}
}

func TestSearch(t *testing.T) {
	hash := func(path string) string { return sumOf("sha256", []byte(path)) }
	r := newRepository(t)
	r.delegate("targets", delegation{name: "A", paths: []string{"*.doc", "*.md"}})
	r.delegate("targets", delegation{name: "B", paths: []string{"releases/*/*"}})
	r.delegate("B", delegation{name: "C", paths: []string{"releases/x/*"}})
	r.delegate("B", delegation{name: "D", paths: []string{"releases/y/*.zip"}})
	r.delegate("targets", delegation{name: "H", prefixes: []string{hash("hashed/one")[:2]}})
	r.delegate("targets", delegation{name: "I", prefixes: []string{hash("hashed/two")[:2], hash("hashed/three")[:3]}})
	for _, f := range []struct{ role, path string }{
		{"targets", "targetfile"}, {"A", "README.md"}, {"C", "releases/x/x_v1"}, {"D", "releases/y/y_v1.zip"},
		{"D", "releases/z/z_v1.zip"}, {"H", "hashed/one"}, {"I", "hashed/two"}, {"I", "hashed/three"}, {"H", "hashed/four"},
	} {
		r.add(f.role, f.path, "content of "+f.path)
	}
	r.published = map[string][][]byte{"root": r.published["root"]}
	r.publish(r.all()...)
	for _, tt := range []struct {
		path, visited string
		found         bool
	}{
		{"targetfile", "", true},
		{"README.md", "A", true},
		{"docs/README.md", "", false},
		{"releases/x/x_v1", "B C", true},
		{"releases/y/y_v1.zip", "B D", true},
		{"releases/z/z_v1.zip", "B", false},
		{"hashed/one", "H", true},
		{"hashed/two", "I", true},
		{"hashed/three", "I", true},
		{"hashed/four", "", false},
	} {
		u := started(t, r)
		r.requests()
		if status := u.download(r, tt.path); tt.found {
			u.must(status, 0)
			u.wantHave("content of " + tt.path)
		} else {
			u.refused(status, trust.ErrNoTarget)
			u.wantHave()
		}
		if got := delegated(t, r.requests()); got != tt.visited {
			t.Errorf("%s: read %q, want %q", tt.path, got, tt.visited)
		}
	}
}

func TestHashBins(t *testing.T) {
	r := newRepository(t)
	k := newKey(t)
	bin := func(path string) string { return "bin-" + sumOf("sha256", []byte(path))[:2] }
	for i := range 256 {
		name := fmt.Sprintf("bin-%02x", i)
		r.docs[name] = &document{role: name, version: 1, expires: time.Now().Add(week), fields: fields{"targets": cjson.Object()}, signers: []signer{k}}
	}
	r.docs["targets"].fields["delegations"] = cjson.Object(
		cjson.F("keys", keysOf(grant{keys: []signer{k}})),
		cjson.F("succinct_roles", cjson.Object(append(grant{[]signer{k}, 1}.members(),
			cjson.F("bit_length", cjson.Int(8)), cjson.F("name_prefix", cjson.String("bin")))...)))
	r.add(bin("user/one"), "user/one", "one")
	r.add(bin("user/elsewhere"), "user/two", "in a bin that has no say in it")
	r.published = map[string][][]byte{"root": r.published["root"]}
	r.publish(r.all()...)
	u := started(t, r)
	u.must(u.download(r, "user/one"), 0)
	if got, want := delegated(t, r.requests()), bin("user/one"); got != want {
		t.Errorf("read %s, want %s", got, want)
	}
	u.refused(u.download(r, "user/two"), trust.ErrNoTarget)
	u.wantHave("one")
}

func TestUnusualRoleNames(t *testing.T) {
	for _, tt := range []struct{ role, asked string }{
		{"?", "1.%3F.json"},
		{"#", "1.%23.json"},
		{"/delegatedrole", "1.%2Fdelegatedrole.json"},
		{"../delegatedrole", "1...%2Fdelegatedrole.json"},
		{"..", "1....json"},
		{"a b%20é", "1.a%20b%2520%C3%A9.json"},
		{".hidden", "1..hidden.json"},
	} {
		for _, consistent := range []bool{true, false} {
			r := newRepository(t)
			r.delegate("targets", delegation{name: tt.role})
			r.consistent = consistent
			r.published = map[string][][]byte{}
			r.publish("root")
			r.publish(r.all()...)
			u := started(t, r)
			u.refused(u.download(r, "nonexistent target"), trust.ErrNoTarget)
			want := tt.asked
			if !consistent {
				want = strings.TrimPrefix(want, "1.")
			}
			if last := r.lastRequest(t); last != want {
				t.Errorf("%q: asked for %s, want %s", tt.role, last, want)
			}
			stored := strings.TrimPrefix(tt.asked, "1.")
			if strings.HasPrefix(stored, ".") {
				stored = "%2E" + stored[1:]
			}
			u.wantTrusted("root 1", "timestamp 1", "snapshot 1", "targets 1", strings.TrimSuffix(stored, ".json")+" 1")
			if name, err := url.PathUnescape(strings.TrimSuffix(stored, ".json")); err != nil || name != tt.role {
				t.Errorf("%q is stored as %s", tt.role, stored)
			}
		}
	}
}

// TestSharedRoleThatIsStored lets two roles delegate to a third with keys of
// their own. That its metadata was good for one says nothing to the other,
// within one run of the program and over several.
func TestSharedRoleThatIsStored(t *testing.T) {
	build := func() *repository {
		r := newRepository(t)
		r.delegate("targets", delegation{name: "A", paths: []string{"a/*"}})
		r.delegate("targets", delegation{name: "B", paths: []string{"b/*"}})
		r.delegate("A", delegation{name: "C", paths: []string{"*/*"}})
		signers := r.docs["C"].signers
		r.delegate("B", delegation{name: "C", paths: []string{"*/*"}})
		r.docs["C"].signers = signers // nobody signed for B
		r.add("C", "a/x", "for A")
		r.add("C", "b/x", "for B")
		r.publish(r.all()...)
		return r
	}
	for _, tt := range []struct {
		name string
		runs [][]string
	}{
		{"one run", [][]string{{"a/x", "b/x"}}},
		{"two runs", [][]string{{"a/x"}, {"b/x"}}},
	} {
		r := build()
		u := started(t, r)
		for i, names := range tt.runs {
			if status := u.download(r, names...); i < len(tt.runs)-1 {
				u.must(status, 0)
			} else {
				u.refused(status, trust.ErrThreshold)
			}
		}
		u.wantHave("for A")
	}
}

// TestStoredRoleWhoseKeysWereRevoked changes who may sign a role that is stored.
func TestStoredRoleWhoseKeysWereRevoked(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", delegation{name: "A"})
	r.add("A", "x", "content")
	r.publish(r.all()...)
	u := started(t, r)
	u.must(u.download(r, "x"), 0)
	r.delegates["targets"][0].grant = grant{[]signer{newKey(t)}, 1}
	r.publish("targets", "snapshot", "timestamp")
	u.refused(u.download(r, "x"), trust.ErrThreshold)
	// The new keys sign the same version anew.
	r.docs["A"].signers = r.delegates["targets"][0].grant.keys
	r.published["A"] = [][]byte{r.sign(r.docs["A"])}
	u.must(u.download(r, "x"), 0)
	if !bytes.Equal(u.stored("A.json"), r.published["A"][0]) {
		t.Error("what the new keys signed is not stored")
	}
}

func TestDelegatedRolesExpire(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", delegation{name: "A", paths: []string{"dir/*"}})
	r.add("A", "dir/first", "first")
	r.add("A", "dir/second", "second")
	r.docs["A"].expires = time.Now().Add(-day)
	r.publish(r.all()...)
	u := started(t, r)
	u.must(u.refresh(r), 0)
	u.refused(u.download(r, "dir/first"), trust.ErrExpired)
	u.wantHave()
	u.wantTrusted("root 1", "timestamp 2", "snapshot 2", "targets 2")
	r.docs["A"].expires = time.Now().Add(7 * day)
	r.publish("A", "snapshot", "timestamp")
	u.must(u.download(r, "dir/first"), 0)
	u.later(18 * day)
	u.refused(u.download(r, "dir/second"), trust.ErrExpired)
	u.wantHave("first")
	r.docs["A"].expires = time.Now().Add(21 * day)
	r.publish("A", "snapshot", "timestamp")
	u.must(u.download(r, "dir/second"), 0)
	u.wantHave("first", "second")
}

func TestDelegatedRoleThatIsMissing(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", delegation{name: "A"})
	r.delegate("targets", delegation{name: "B"})
	r.add("B", "x", "content")
	r.publish(r.all()...)
	r.published["A"] = nil
	u := started(t, r)
	u.refused(u.download(r, "x"), client.ErrNotFound)
	u.wantHave()
}

func TestDelegationsThatCanNotBeRead(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	r.docs["targets"].fields["delegations"] = cjson.Object(cjson.F("keys", cjson.Object()))
	r.publish("targets", "snapshot", "timestamp")
	u.refused(u.refresh(r), trust.ErrMalformed)
}
