package objdiff_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

func compile(t *testing.T, text string, flags ...string) []*object.Object {
	t.Helper()
	dir := authortest.Objects(t, authortest.Files{"a.c": text}, append(authortest.Sections(), flags...)...)
	data, err := os.ReadFile(filepath.Join(dir, "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.Read("a.o", data)
	if err != nil {
		t.Fatal(err)
	}
	return []*object.Object{o}
}

func names(list []*object.Function) string {
	var out []string
	for _, f := range list {
		out = append(out, f.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

const statics = `
	int a(int x) { static int n = 1; n += x; return n; }
	int b(int x) { static int n = 2; n *= x; return n; }
	int c(int x) { static int m; return m += x; }
	static const char *const words[] = {"one", "two"};
	const char *word(int i) { return words[i & 1]; }
	const char *name(void) { return __func__; }
	double half(double x) { return x * 0.5; }
`

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name, old, new        string
		changed, fresh, gone  string
		refused               refusal.Kind
		flagsBefore, flagsNow []string
	}{
		{name: "nothing"},
		{name: "debug information", flagsNow: []string{"-g0"}},
		{name: "numbers of statics shift", old: "int c(int x)", new: "int d(int x) { static int n = 7, k; k ^= x; return n += k; }\nint c(int x)", fresh: "d"},
		{name: "a static goes", old: "static int m; return m += x;", new: "return x;", changed: "c"},
		{name: "a static comes where one is", old: "n += x; return n;", new: "static int k; k += x; n += k; return n;", changed: "a"},
		{name: "a static changes its owner", old: "int a(int x) { static", new: "int renamed(int x) { static", fresh: "renamed", gone: "a", refused: refusal.Symbol},
		{name: "an initial value", old: "n = 2", new: "n = 3", refused: refusal.Data},
		{name: "a text in a table", old: `"two"`, new: `"2"`, changed: "word"},
		{name: "a table grows", old: `"two"}`, new: `"two", "three"}`, changed: "word"},
		{name: "a number", old: "0.5", new: "0.25", changed: "half"},
		{name: "a function goes", old: "double half(double x) { return x * 0.5; }", gone: "half"},
		{name: "the order of functions", old: "int c(int x) { static int m; return m += x; }", new: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := statics
			if c.old != "" {
				text = strings.Replace(text, c.old, c.new, 1)
			}
			if c.name == "the order of functions" {
				text += c.old
			}
			pairs := objdiff.Compare(compile(t, statics, c.flagsBefore...), compile(t, text, c.flagsNow...))
			if len(pairs) != 1 {
				t.Fatalf("%d pairs", len(pairs))
			}
			p := pairs[0]
			if got := names(p.Changed); got != c.changed {
				t.Errorf("changed %q, want %q", got, c.changed)
			}
			if got := names(p.New); got != c.fresh {
				t.Errorf("new %q, want %q", got, c.fresh)
			}
			if got := names(p.Removed); got != c.gone {
				t.Errorf("removed %q, want %q", got, c.gone)
			}
			switch {
			case c.refused == "" && len(p.Refusals) > 0:
				t.Errorf("refused: %v", p.Refusals)
			case c.refused != "" && (len(p.Refusals) == 0 || p.Refusals[0].Kind != c.refused):
				t.Errorf("want a refusal of kind %s, have %v", c.refused, p.Refusals)
			}
		})
	}
}

// TestStaticsKeepTheirOwner looks at which old variable a new one is.
func TestStaticsKeepTheirOwner(t *testing.T) {
	t.Parallel()
	text := strings.Replace(statics, "int a(int x)", "int first(int x) { static int n = 9; n -= x; return n; }\nint a(int x)", 1)
	p := objdiff.Compare(compile(t, statics), compile(t, text))[0]
	first := map[string]int{} // initial value of each variable called n, by name
	value := func(o *object.Object, i int) byte { return o.SectionOf(i).Data[o.Symbols[i].Value] }
	for i := range p.After.Symbols {
		y := &p.After.Symbols[i]
		if !strings.HasPrefix(y.Name, "n.") {
			continue
		}
		first[y.Name] = int(value(p.After, i))
		old, ok := p.Old(i)
		if ok != (value(p.After, i) != 9) {
			t.Errorf("%s, starting with %d: has an old one: %v", y.Name, value(p.After, i), ok)
		}
		if ok && value(p.Before, old) != value(p.After, i) {
			t.Errorf("%s is taken for another function's variable", y.Name)
		}
	}
	if len(first) != 3 {
		t.Fatalf("the test's variables are %v", first)
	}
}

func TestCompareTrees(t *testing.T) {
	t.Parallel()
	o := compile(t, statics)[0]
	if p := objdiff.Compare([]*object.Object{o}, nil)[0]; p.Touched() || names(p.Removed) == "" {
		t.Errorf("an object that went: %+v", p)
	}
	if p := objdiff.Compare(nil, []*object.Object{o})[0]; !p.Touched() || !p.IsNew("half") || p.IsChanged("half") {
		t.Errorf("an object that came: %+v", p)
	}
}
