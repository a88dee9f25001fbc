package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
)

// command runs livemend with the arguments and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	parser, err := kong.New(&commands{}, kong.Writers(&out, &out), kong.BindTo(t.Context(), (*context.Context)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return out.String(), err
	}
	err = parsed.Run()
	return out.String(), err
}

func TestPatchBuild(t *testing.T) {
	files := authortest.Files{"a.c": "int limit(int x) { return x > 100 ? 100 : x; }"}
	fixed := authortest.Files{"a.c": "int limit(int x) { return x > 50 ? 50 : x; }"}
	before, after := authortest.Objects(t, files, authortest.Sections()...), authortest.Objects(t, fixed, authortest.Sections()...)
	binary, twin := authortest.Library(t, files)
	out := filepath.Join(t.TempDir(), "new")
	build := func(id string) []string {
		return []string{"patch", "build", "user", "--before", before, "--after", after, "--binary", binary, "--twin", twin,
			"--fix", "CVE=TEST-2026-1,severity=high,component=libtest1,distribution=debian-12,fixed=1.0-2",
			"--fix", "cve=TEST-2026-2", "--level", "3", "--out", out, "--id", id}
	}
	said, err := command(t, build("U20261123-test-3")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"replaces limit (a.o", "build-id", "U20261123-test-3.lmp"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, "U20261123-test-3.json"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := cjson.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	md, err := patch.ParseCustom(value)
	if err != nil {
		t.Fatal(err)
	}
	if md.Level != 3 || len(md.Fixes) != 2 || !md.Covers("TEST-2026-2") || md.Fixes[0].FixedVersion != "1.0-2" || md.Target.Library != "libtest.so" {
		t.Errorf("metadata: %+v", md)
	}
	said, err = command(t, "patch", "show", filepath.Join(out, "U20261123-test-3.lmp"))
	if err != nil || !strings.Contains(said, "function limit at") || !strings.Contains(said, string(md.Target.BuildID)) {
		t.Errorf("show says %q, %v", said, err)
	}
	after = before
	if said, err = command(t, build("U20261123-test-4")...); err == nil || !strings.Contains(err.Error(), "refused (nothing)") {
		t.Errorf("a build of no change: %q, %v", said, err)
	}
	left, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("files: %v, %v", left, err)
	}
}

// TestPatchBuildWaives has a struct that grows in a function of its own.
func TestPatchBuildWaives(t *testing.T) {
	old := "struct pair { int a, b; }; int sum(struct pair *p) { return p->a * 3 + p->b; }"
	files, fixed := authortest.Files{"a.c": old}, authortest.Files{"a.c": strings.Replace(old, "int a,", "int c, a,", 1)}
	before, after := authortest.Objects(t, files, authortest.Sections()...), authortest.Objects(t, fixed, authortest.Sections()...)
	binary, twin := authortest.Library(t, files)
	build := []string{"patch", "build", "user", "--before", before, "--after", after, "--binary", binary, "--twin", twin,
		"--fix", "CVE=TEST-2026-1", "--level", "1", "--id", "U1", "--out", t.TempDir()}
	said, err := command(t, build...)
	if err == nil || !strings.Contains(err.Error(), "--waive 'layout:struct pair=YOUR NAME: REASON'") {
		t.Fatalf("it does not say how to waive: %q, %v", said, err)
	}
	said, err = command(t, append(build, "--waive", "layout:struct pair=Ada Lovelace: callers are rebuilt, all of them")...)
	if err != nil || !strings.Contains(said, "waived by Ada Lovelace: callers are rebuilt, all of them") {
		t.Fatalf("the waiver is not taken: %q, %v", said, err)
	}
	if said, err = command(t, append(build, "--waive", "data:x=A: b")...); err == nil || !strings.Contains(err.Error(), "cannot be waived") {
		t.Fatalf("a waiver of what nobody can waive: %q, %v", said, err)
	}
}

func TestParseFix(t *testing.T) {
	want := patch.Fix{CVE: "CVE-2026-1", Severity: "low", Component: "a", Distribution: "debian-12", FixedVersion: "1:2.0~x"}
	if got, err := parseFix("CVE=CVE-2026-1,severity=low,component=a,distribution=debian-12,fixed=1:2.0~x"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "severity=high", "CVE", "CVE=", "CVE=X,colour=red", "CVE=X,"} {
		if got, err := parseFix(bad); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}

func TestPlainName(t *testing.T) {
	for name, want := range map[string]bool{
		"U20261123-1a2b-1": true, "a.b_c": true, "": false, ".hidden": false, "-x": false, "a/b": false, "a b": false, "ä": false,
	} {
		if plainName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// A fix that calls what the library never called needs to be told the version,
// and the patch says that it imports it.
func TestPatchBuildImports(t *testing.T) {
	t.Parallel()
	before := authortest.Files{"a.c": "#include <unistd.h>\n__attribute__((noinline)) int work(int x) { return x * x * 3 + 1; }\nvoid show(void) { work(1); }"}
	after := authortest.Files{"a.c": strings.Replace(before["a.c"], "3 + 1", "getpagesize()", 1)}
	binary, twin := authortest.Library(t, before)
	_, fixed := authortest.Library(t, after)
	out := t.TempDir()
	args := []string{
		"patch", "build", "user", "--before", authortest.Objects(t, before, authortest.Sections()...),
		"--after", authortest.Objects(t, after, authortest.Sections()...), "--binary", binary, "--twin", twin,
		"--fix", "CVE=TEST-1", "--level", "1", "--id", "U-test-1", "--out", out,
	}
	if _, err := command(t, args...); err == nil || !strings.Contains(err.Error(), "--fixed FILE") {
		t.Fatalf("without the linked result: %v", err)
	}
	said, err := command(t, append(args, "--fixed", fixed)...)
	if err != nil || !strings.Contains(said, "imports getpagesize@GLIBC_2.2.5") {
		t.Fatalf("%v: %s", err, said)
	}
	said, err = command(t, "patch", "show", filepath.Join(out, "U-test-1.lmp"))
	if err != nil || !strings.Contains(said, "import getpagesize@GLIBC_2.2.5 (function)") {
		t.Errorf("%v: %s", err, said)
	}
}
