package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines bounds a file that a person reads. Generated files are not read.
const maxLines = 450

type file struct{ name, text string }

func files(t *testing.T, p golang, names []string) []file {
	t.Helper()
	var list []file
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, file{filepath.Join(p.folder(), name), string(text)})
	}
	return list
}

func TestFilesStaySmall(t *testing.T) {
	for _, p := range packages(t) {
		names := append(append(append([]string{}, p.GoFiles...), p.TestGoFiles...), p.XTestGoFiles...)
		for _, f := range files(t, p, names) {
			if strings.HasSuffix(f.name, "_templ.go") {
				continue
			}
			if n := strings.Count(f.text, "\n"); n > maxLines {
				t.Errorf("%s has %d lines, more than %d: it has more than one purpose", f.name, n, maxLines)
			}
		}
	}
}

func TestLicence(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("LICENSE lacks %q", want)
		}
	}
}

// unwanted must stand nowhere: leftovers, addresses of package registries, and
// places of one machine. Each is split so that this file does not hold it.
var unwanted = []string{
	"TO" + "DO", "FIX" + "ME", "X" + "XX",
	"registry." + "npmjs", "proxy.golang" + ".org", "deb.debian" + ".org",
	"/work" + "/main", "/work" + "/shared", "/home" + "/user",
}

func TestNothingUnwanted(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed, so the list of the project's files is not known")
	}
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skip("this is no git checkout, so the list of the project's files is not known")
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 || strings.HasSuffix(name, "go.sum") {
			continue
		}
		for _, word := range unwanted {
			if i := bytes.Index(text, []byte(word)); i >= 0 {
				t.Errorf("%s:%d has %q", name, 1+bytes.Count(text[:i], []byte("\n")), word)
			}
		}
	}
}
