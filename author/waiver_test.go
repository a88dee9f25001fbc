package author_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch"
)

var sizes = authortest.Files{"a.c": head + `
	struct bag { int n, m; };
	struct box { int n, m; };
	__attribute__((noinline)) int full(struct bag *b) { return b->m * 2 + b->n; }
	__attribute__((noinline)) int empty(struct box *b) { return b->m * 3 + b->n; }
	void show(void) { struct bag b = {1, 2}; struct box x = {3, 4}; printf("%d %d", full(&b), empty(&x)); }`,
}

// TestWaivers changes a struct of automatic variables, which is harmless, as
// only a person can know.
func TestWaivers(t *testing.T) {
	t.Parallel()
	bag := edit(sizes, "a.c", "struct bag { int n, m; }", "struct bag { int o, n, m; }")
	bag = edit(bag, "a.c", "struct bag b = {1, 2}", "struct bag b = {0, 1, 3}")
	both := edit(bag, "a.c", "struct box { int n, m; }", "struct box { int m, n; }")
	const good = "layout:struct bag=Ada Lovelace: it lives within one call: see show"
	for _, c := range []struct {
		name    string
		after   authortest.Files
		flags   []string
		waivers []string
		places  string // that are refused
		unused  bool
	}{
		{name: "none", after: bag, places: "struct bag"},
		{name: "the right one", after: bag, waivers: []string{good}},
		{name: "the right one of two", after: both, waivers: []string{good}, places: "struct box"},
		{name: "another place", after: bag, waivers: []string{"layout:struct ba=A: b"}, places: "struct bag"},
		{name: "another kind", after: bag, waivers: []string{"ownership:struct bag=A: b"}, places: "struct bag"},
		{name: "one too many", after: bag, waivers: []string{good, "layout:struct box=A: b"}, unused: true},
		{name: "one twice", after: bag, waivers: []string{good, good}, unused: true},
		{name: "no debug information", after: edit(sizes, "a.c", "* 2", "* 4"), flags: []string{"-g0"}, places: "debug information"},
		{name: "no debug information, waived", after: edit(sizes, "a.c", "* 2", "* 4"), flags: []string{"-g0"}, waivers: []string{"layout:debug information=A: compared by eye"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			flags := append(authortest.Sections(), c.flags...)
			before, after := authortest.Objects(t, sizes, flags...), authortest.Objects(t, c.after, flags...)
			binary, twin := authortest.Library(t, sizes)
			r := request(t, before, after, binary, twin)
			for _, text := range c.waivers {
				w, err := author.ParseWaiver(text)
				if err != nil {
					t.Fatal(err)
				}
				r.Waivers = append(r.Waivers, w)
			}
			result, err := author.Build(t.Context(), r)
			var places []string
			for _, r := range refusal.All(err) {
				if r.Kind != refusal.Layout {
					t.Errorf("refused: %v", r)
				}
				places = append(places, r.Place)
			}
			if got := strings.Join(places, ", "); got != c.places {
				t.Errorf("refused at %q, want %q", got, c.places)
			}
			if got := errors.Is(err, author.ErrWaiver); got != c.unused {
				t.Errorf("unused waiver: %v, want %v (%v)", got, c.unused, err)
			}
			if c.places != "" || c.unused {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkRecorded(t, result, r.Waivers)
		})
	}
}

// checkRecorded looks for the waivers in what is published.
func checkRecorded(t *testing.T, r *author.Result, waivers []author.Waiver) {
	t.Helper()
	md, err := patch.ParseCustom(r.Metadata.Custom())
	if err != nil {
		t.Fatal(err)
	}
	if len(md.Provenance.Waivers) != len(waivers) {
		t.Fatalf("recorded: %q", md.Provenance.Waivers)
	}
	for i, w := range waivers {
		text := md.Provenance.Waivers[i]
		for _, part := range []string{string(w.Kind), w.Place, w.Person, w.Reason} {
			if !strings.Contains(text, part) {
				t.Errorf("%q does not say %q", text, part)
			}
		}
		if !slices.Contains(r.Account, "waived: "+text) {
			t.Errorf("the account does not say %q", text)
		}
	}
}

// TestOwnershipIsWaived has a setter that copies now, and the end of the copy.
func TestOwnershipIsWaived(t *testing.T) {
	t.Parallel()
	files := authortest.Files{"a.c": head + `
		struct reader { char *name; int own; };
		__attribute__((noinline)) void set(struct reader *r, char *name) { r->name = name; r->own = 0; }
		__attribute__((noinline)) void done(struct reader *r) { printf("%s.", r->name); if (r->own) free(r->name); free(r); }
		void show(void) { char name[] = "n"; fputs(strdup("k"), stdout); struct reader *r = calloc(1, sizeof *r); set(r, name); name[0] = 'm'; done(r); }`,
	}
	fixed := edit(edit(files, "a.c", "r->name = name; r->own = 0;", "r->name = strdup(name);"), "a.c", "if (r->own) free", "free")
	before, after := authortest.Objects(t, files, authortest.Sections()...), authortest.Objects(t, fixed, authortest.Sections()...)
	binary, twin := authortest.Library(t, files)
	_, err := author.Build(t.Context(), request(t, before, after, binary, twin))
	checkRefusal(t, err, refusal.Ownership, "done, set")
	r := request(t, before, after, binary, twin)
	r.Waivers = []author.Waiver{{Kind: refusal.Ownership, Place: "done, set", Person: "Ada Lovelace", Reason: "no reader outlives show"}}
	result, err := author.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	checkRecorded(t, result, r.Waivers)
	if says, then := authortest.Apply(t, binary, result.Image); says != "km." || then != "kn." {
		t.Errorf("it says %q, then %q", says, then)
	}
}

func TestParseWaiver(t *testing.T) {
	w, err := author.ParseWaiver("layout: struct a = Ada Lovelace : one: call=1 ")
	if want := (author.Waiver{Kind: refusal.Layout, Place: "struct a", Person: "Ada Lovelace", Reason: "one: call=1"}); err != nil || w != want {
		t.Fatalf("read %+v, %v", w, err)
	}
	for _, bad := range []string{
		"", "layout", "layout:", "layout:struct a", "layout:struct a=", "layout:struct a=Ada", "layout:struct a=Ada: ",
		"layout:struct a=: why", "layout:=Ada: why", "data:table=Ada: why", ":struct a=Ada: why", "layout:a=Ada: x\ny",
		"layout:a=Ada: " + strings.Repeat("x", patch.MaxText),
	} {
		if w, err := author.ParseWaiver(bad); !errors.Is(err, author.ErrWaiver) {
			t.Errorf("%q was read as %+v, %v", bad, w, err)
		}
	}
	for _, kind := range []refusal.Kind{refusal.Data, refusal.Foreign, refusal.Small, refusal.ThreadLocal} {
		if author.CanWaive(kind) {
			t.Errorf("%s can be waived", kind)
		}
	}
}
