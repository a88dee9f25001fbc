package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Flags that do not go together are refused before anything is fetched.
func TestPatchBuildSources(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lib.so")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	objects := []string{"--before", dir, "--after", dir, "--binary", file}
	for _, test := range []struct {
		name, want string
		args       []string
	}{
		{"nothing to build from", "--debian with a source package", []string{"--fix", "CVE=TEST-2026-1"}},
		{"no vulnerability", "--fix CVE=ID", []string{"--debian", "xz-utils", "--fix", "debian/patches/a.patch"}},
		{"a patch of no package", "go with --debian", append([]string{"--fix", "CVE=TEST-2026-1", "--fix", "debian/patches/a.patch"}, objects...)},
		{"a version of no package", "go with --debian", append([]string{"--fix", "CVE=TEST-2026-1", "--from", "1-1"}, objects...)},
		{"objects and a package", "leave out --before", append([]string{"--fix", "CVE=TEST-2026-1", "--debian", "xz-utils"}, objects...)},
		{"no version", "no version", []string{"--fix", "CVE=TEST-2026-1", "--debian", "xz-utils", "--work", filepath.Join(dir, "work")}},
	} {
		out := filepath.Join(dir, "out")
		args := append([]string{"patch", "build", "user", "--level", "1", "--id", "U-test", "--out", out}, test.args...)
		if _, err := command(t, args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error about %q", test.name, err, test.want)
		}
		for _, name := range []string{out, filepath.Join(dir, "work")} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s: %s was made", test.name, name)
			}
		}
	}
}
