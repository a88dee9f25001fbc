package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSourceLines(t *testing.T) {
	const text = `# the archive
deb [signed-by=/usr/share/keyrings/k.gpg]  http://mirror.invalid/debian bookworm main # note
deb-src http://mirror.invalid/debian bookworm main
#deb http://mirror.invalid/debian off main

nonsense
`
	const want = `deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.invalid/debian bookworm main
deb-src [signed-by=/usr/share/keyrings/k.gpg] http://mirror.invalid/debian bookworm main
deb http://mirror.invalid/debian bookworm main
deb-src http://mirror.invalid/debian bookworm main
`
	if diff := cmp.Diff(want, withSourceLines(text)); diff != "" {
		t.Error(diff)
	}
	if got := withSourceLines("# nothing\n"); got != "" {
		t.Errorf("sources from nothing: %q", got)
	}
}

func TestSourceTypes(t *testing.T) {
	const text = `Types: deb
# old: http://mirror.invalid/old
URIs: http://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg

Enabled: no
Types: deb
URIs: http://mirror.invalid/off
Suites: bookworm
`
	const want = `Types: deb deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg

`
	if diff := cmp.Diff(want, withSourceTypes(text)); diff != "" {
		t.Error(diff)
	}
}

// Only files that apt itself reads count, and the root is only read.
func TestPrivateSources(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := writeFile(filepath.Join(root, "etc/apt", name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := privateSources(root); err == nil {
		t.Error("a root without sources was accepted")
	}
	write("sources.list", "deb http://mirror.invalid/debian bookworm main\n")
	write("sources.list.d/a.sources", "Types: deb\nURIs: http://mirror.invalid/a\nSuites: b\nComponents: main\n")
	write("sources.list.d/b.list.disabled", "deb http://mirror.invalid/no bookworm main\n")
	got, err := privateSources(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !strings.Contains(got["sources.list"], "deb-src http") || !strings.Contains(got["a.sources"], "Types: deb deb-src\n") {
		t.Errorf("derived %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(root, "etc/apt/sources.list")); err != nil || strings.Contains(string(text), "deb-src") {
		t.Errorf("the root's own sources read %q (%v)", text, err)
	}
}

// What apt keeps must lie in the work folder, and hooks must not run.
func TestAptConfig(t *testing.T) {
	for _, want := range []string{
		`Dir::State::lists "/livemend/apt/lists";`, `Dir::Cache "/livemend/apt/cache";`,
		`Dir::Etc::sourceparts "/livemend/apt/sources.d";`, `Dir::Etc::sourcelist "/dev/null";`,
		`#clear DPkg::Post-Invoke;`, `#clear APT::Update::Post-Invoke;`,
	} {
		if !strings.Contains(aptConfig, want+"\n") {
			t.Errorf("the configuration lacks %s", want)
		}
	}
	if strings.Contains(aptConfig, "://") {
		t.Error("the configuration names a host")
	}
}
