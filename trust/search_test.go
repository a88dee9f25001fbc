package trust_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// edge is one delegation of a graph.
type edge struct {
	from, to    string
	terminating bool
	paths       []string // nil: *
	prefixes    []string
	keys        []key // nil: the key named like the role
	threshold   int64 // 0: 1
}

func (e edge) value() cjson.Value {
	var ids []string
	for _, k := range e.signers() {
		ids = append(ids, k.id)
	}
	rule := cjson.F("paths", cjson.Strings(e.paths))
	switch {
	case e.prefixes != nil:
		rule = cjson.F("path_hash_prefixes", cjson.Strings(e.prefixes))
	case e.paths == nil:
		rule = cjson.F("paths", cjson.Strings([]string{"*"}))
	}
	return cjson.Object(
		cjson.F("name", cjson.String(e.to)),
		cjson.F("keyids", cjson.Strings(ids)),
		cjson.F("threshold", cjson.Int(max(e.threshold, 1))),
		cjson.F("terminating", cjson.Bool(e.terminating)), rule)
}

func (e edge) signers() []key {
	if e.keys != nil {
		return e.keys
	}
	return keys(e.to)
}

// graph is a repository with delegations.
type graph struct {
	*world
	roles map[string]*part
}

func newGraph(edges ...edge) *graph {
	g := &graph{newWorld(), map[string]*part{}}
	for _, e := range edges {
		if g.roles[e.to] == nil {
			g.roles[e.to] = &part{value: doc("targets", 1, cjson.F("targets", cjson.Object())), signers: e.signers()}
		}
	}
	for from, list := range group(edges) {
		var roles []cjson.Value
		var members []cjson.Member
		for _, e := range list {
			roles = append(roles, e.value())
			for _, k := range e.signers() {
				members = append(members, cjson.F(k.id, k.public().Value()))
			}
		}
		p := g.part(from)
		p.value = set(p.value, cjson.Object(
			cjson.F("keys", cjson.Object(members...)), cjson.F("roles", cjson.Array(roles...))), "delegations")
	}
	return g
}

func group(edges []edge) map[string][]edge {
	by := map[string][]edge{}
	for _, e := range edges {
		by[e.from] = append(by[e.from], e)
	}
	return by
}

func (g *graph) part(role string) *part {
	if role == "targets" {
		return &g.targets
	}
	return g.roles[role]
}

// give lists a target in a role.
func (g *graph) give(role, path, content string) {
	p := g.part(role)
	p.value = set(p.value, targetFor(path, content).Value(), "targets", path)
}

// trusted runs the client workflow for the roles at the top.
func (g *graph) trusted(t testing.TB) *trust.Trusted {
	t.Helper()
	g.link()
	for name, p := range g.roles {
		n, _ := p.value.Get("version")
		version, _ := n.Int()
		g.snapshot.value = set(g.snapshot.value, meta(version, p.signed()), "meta", name+".json")
	}
	g.timestamp.value = set(g.timestamp.value, meta(5, g.snapshot.signed()), "meta", "snapshot.json")
	g.unlinked = true
	trusted, err := g.run(trust.Ed25519())
	if err != nil {
		t.Fatalf("a good repository is refused: %v", err)
	}
	return trusted
}

// search looks for path and returns which roles were read for it.
func (g *graph) search(t testing.TB, trusted *trust.Trusted, path string) (trust.Target, []string, error) {
	t.Helper()
	s, err := trusted.Search(path)
	if err != nil {
		return trust.Target{}, nil, err
	}
	var visited []string
	for {
		want, more, err := s.Next()
		if err != nil {
			return trust.Target{}, visited, err
		}
		if !more {
			target, err := s.Result()
			return target, visited, err
		}
		if _, err := s.Result(); !errors.Is(err, trust.ErrOrder) {
			t.Errorf("a result while a role is wanted: %v", err)
		}
		visited = append(visited, want.Role)
		if err := s.Update(g.roles[want.Role].delivered(), now); err != nil {
			return trust.Target{}, visited, err
		}
	}
}

func TestGraphs(t *testing.T) {
	py := []string{"*.py"}
	for _, tt := range []struct {
		name  string
		edges []edge
		want  string
	}{
		{"one", []edge{{from: "targets", to: "A"}}, "A"},
		{"two", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}}, "A B"},
		{"depth first", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "A", to: "D"}}, "A C D B"},
		{"three levels", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "C", to: "D"}}, "A C D B"},
		{"terminating", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "A", to: "D"}}, "A C"},
		{"below terminating", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "C", to: "D"}}, "A C D"},
		{"terminating comes second", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B", terminating: true}, {from: "targets", to: "C"}}, "A B"},
		{"terminating, other path", []edge{{from: "targets", to: "A", terminating: true, paths: py}, {from: "targets", to: "B"}}, "B"},
		{"other path", []edge{{from: "targets", to: "A", paths: py}, {from: "targets", to: "B"}, {from: "A", to: "C"}}, "B"},
		{"cycle", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "C", to: "D"}, {from: "D", to: "B"}}, "A B C D"},
		{"to itself", []edge{{from: "targets", to: "A"}, {from: "A", to: "A"}}, "A"},
		{"shared", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C"}}, "A C B"},
		{"shared, other path", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C", paths: py}}, "A B C"},
		{"no path", []edge{{from: "targets", to: "A", paths: []string{}}}, ""},
	} {
		g := newGraph(tt.edges...)
		_, visited, err := g.search(t, g.trusted(t), "missing")
		if !errors.Is(err, trust.ErrNoTarget) {
			t.Errorf("%s: %v, want ErrNoTarget", tt.name, err)
		}
		if got := strings.Join(visited, " "); got != tt.want {
			t.Errorf("%s: read %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestSearchFindsByPathAndByHash(t *testing.T) {
	prefix := digestOf("hashed")
	g := newGraph(
		edge{from: "targets", to: "A", paths: []string{"*.doc", "*.md"}},
		edge{from: "targets", to: "B", paths: []string{"releases/*/*"}},
		edge{from: "B", to: "C", paths: []string{"releases/x/*"}},
		edge{from: "B", to: "D", paths: []string{"releases/y/*.zip"}},
		edge{from: "targets", to: "H", prefixes: []string{digestOf("README.md")[:2], prefix[:3]}},
		edge{from: "targets", to: "other", prefixes: []string{flip(prefix[:1]), prefix[:4] + flip(prefix[4:5])}},
	)
	g.give("targets", "top", "top")
	g.give("A", "top", "not asked")
	g.give("A", "README.md", "by A")
	g.give("C", "releases/x/1", "by C")
	g.give("D", "releases/y/1.zip", "by D")
	g.give("D", "releases/z/1.zip", "not D's to give")
	g.give("other", "hashed", "not other's to give")
	g.give("H", "README.md", "whoever comes first is believed")
	g.give("H", "hashed", "by H")
	trusted := g.trusted(t)
	for _, tt := range []struct{ path, content, visited string }{
		{"top", "top", ""},
		{"README.md", "by A", "A"},
		{"releases/x/1", "by C", "B C"},
		{"releases/y/1.zip", "by D", "B D"},
		{"releases/z/1.zip", "", "B"},
		{"hashed", "by H", "H"},
	} {
		target, visited, err := g.search(t, trusted, tt.path)
		if got := strings.Join(visited, " "); got != tt.visited {
			t.Errorf("%s: read %q, want %q", tt.path, got, tt.visited)
		}
		if tt.content == "" {
			if !errors.Is(err, trust.ErrNoTarget) {
				t.Errorf("%s: %v, want ErrNoTarget", tt.path, err)
			}
			continue
		}
		if err != nil || target.SHA256 != targetFor(tt.path, tt.content).SHA256 {
			t.Errorf("%s: %+v, %v", tt.path, target, err)
		}
	}
}

func digestOf(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:])
}

// flip returns another hexadecimal digit.
func flip(digit string) string {
	if digit == "f" {
		return "0"
	}
	return "f"
}

func TestBins(t *testing.T) {
	for _, bits := range []int{1, 2, 3, 4, 5, 7, 8, 11, 16, 31, 32} {
		g := newGraph()
		k := newKey("bins")
		g.targets.value = set(g.targets.value, cjson.Object(
			cjson.F("keys", cjson.Object(cjson.F(k.id, k.public().Value()))),
			cjson.F("succinct_roles", cjson.Object(
				cjson.F("keyids", cjson.Strings([]string{k.id})),
				cjson.F("threshold", cjson.Int(1)),
				cjson.F("bit_length", cjson.Int(int64(bits))),
				cjson.F("name_prefix", cjson.String("bin"))))), "delegations")
		for _, path := range []string{"a", "user/libssl/1.lmp", "user/libc/2.lmp"} {
			sum := sha256.Sum256([]byte(path))
			// The first bits of the hash, counted one by one.
			n := 0
			for i := range bits {
				n = n<<1 | int(sum[i/8]>>(7-i%8)&1)
			}
			name := fmt.Sprintf("bin-%0*x", len(fmt.Sprintf("%x", 1<<bits-1)), n)
			if g.roles[name] == nil {
				g.roles[name] = &part{value: doc("targets", 1, cjson.F("targets", cjson.Object())), signers: []key{k}}
			}
			g.give(name, path, content)
			_, visited, err := g.search(t, g.trusted(t), path)
			if err != nil || !slices.Equal(visited, []string{name}) {
				t.Errorf("%d bits, %s: read %v, want %s: %v", bits, path, visited, name, err)
			}
		}
	}
}

func TestSearchHasLimits(t *testing.T) {
	var wide, deep []edge
	for i := range trust.MaxVisited + 1 {
		wide = append(wide, edge{from: "targets", to: fmt.Sprintf("w%02d", i)})
	}
	from := "targets"
	for i := range trust.MaxDelegation + 1 {
		to := fmt.Sprintf("d%02d", i)
		deep = append(deep, edge{from: from, to: to})
		from = to
	}
	for _, tt := range []struct {
		name  string
		edges []edge
		last  string
		most  int
	}{
		{"wide", wide, wide[len(wide)-1].to, trust.MaxVisited},
		{"deep", deep, deep[len(deep)-1].to, trust.MaxDelegation},
	} {
		g := newGraph(tt.edges...)
		g.give(tt.last, "far", content)
		_, visited, err := g.search(t, g.trusted(t), "far")
		if !errors.Is(err, trust.ErrNoTarget) || len(visited) != tt.most {
			t.Errorf("%s: read %d roles, want %d: %v", tt.name, len(visited), tt.most, err)
		}
	}
}
