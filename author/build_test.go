package author_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/patch"
)

func TestMain(m *testing.M) { os.Exit(authortest.Main(m)) }

// change is one fix of a small library whose function show prints what it does.
type change struct {
	name          string
	before, after authortest.Files
	objects       []string // flags of the objects beside those for sections
	library       []string // flags of the library
	replaces      string   // functions, sorted
	adds          string
	says, then    string // what show prints before and after
}

const head = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#define HIDE __attribute__((noinline)) static\n"

// edit returns a copy of f with one text replaced.
func edit(f authortest.Files, file, old, new string) authortest.Files {
	out := authortest.Files{}
	for name, text := range f {
		out[name] = text
	}
	if !strings.Contains(out[file], old) {
		panic("the edit changes nothing: " + old)
	}
	out[file] = strings.ReplaceAll(out[file], old, new)
	return out
}

func request(t *testing.T, before, after, binary, twin string) author.Request {
	t.Helper()
	return author.Request{
		Before: before, After: after, Binary: binary, Twin: twin, ID: "U-test-1", Level: 1, Builder: "test",
		Fixes: []patch.Fix{{CVE: "TEST-1"}},
	}
}

func TestBuild(t *testing.T) {
	for _, c := range slices.Concat(changes, features) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			flags := append(authortest.Sections(), c.objects...)
			before, after := authortest.Objects(t, c.before, flags...), authortest.Objects(t, c.after, flags...)
			binary, twin := authortest.Library(t, c.before, append(slices.Clone(c.objects), c.library...)...)
			r, err := author.Build(t.Context(), request(t, before, after, binary, twin))
			if err != nil {
				t.Fatal(err)
			}
			var replaces []string
			for i := range r.Image.Hunks {
				replaces = append(replaces, r.Image.Hunks[i].Name)
			}
			slices.Sort(replaces)
			if got := strings.Join(replaces, " "); got != c.replaces {
				t.Errorf("replaces %q, want %q", got, c.replaces)
			}
			var adds []string
			for _, f := range r.Metadata.Functions {
				if !slices.Contains(replaces, f.Name) {
					adds = append(adds, f.Name)
				}
			}
			if got := strings.Join(adds, " "); got != c.adds {
				t.Errorf("adds %q, want %q", got, c.adds)
			}
			says, then := authortest.Apply(t, binary, r.Image)
			if says != c.says {
				t.Errorf("before it says %q, want %q", says, c.says)
			}
			if then != c.then {
				t.Errorf("after it says %q, want %q", then, c.then)
			}
			if t.Failed() {
				t.Log(strings.Join(r.Account, "\n"))
			}
		})
	}
}

func TestBuildIsReproducible(t *testing.T) {
	c := changes[0]
	before, after := authortest.Objects(t, c.before, authortest.Sections()...), authortest.Objects(t, c.after, authortest.Sections()...)
	binary, twin := authortest.Library(t, c.before)
	var first *author.Result
	for range 3 {
		r, err := author.Build(t.Context(), request(t, before, after, binary, twin))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r
		}
		if !bytes.Equal(first.Artifact, r.Artifact) || !bytes.Equal(first.Metadata.Custom().Canonical(), r.Metadata.Custom().Canonical()) {
			t.Fatal("two builds from the same inputs differ")
		}
	}
	if got := first.Metadata.Provenance; !strings.Contains(got.Compiler, "GNU") && !strings.Contains(got.Compiler, "GCC") || len(got.Inputs) != 4 {
		t.Errorf("provenance: %+v", got)
	}
}

func TestBuildStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := authortest.Objects(t, changes[0].before, authortest.Sections()...)
	if _, err := author.Build(ctx, request(t, dir, dir, "none", "")); err == nil {
		t.Fatal("a cancelled build went on")
	}
}
