package debian

import (
	"strings"
	"testing"
)

// FuzzTexts reads whatever a source package or an archive may say: no panic,
// and nothing that was read leads out of a folder.
func FuzzTexts(f *testing.F) {
	f.Add("Format: 3.0 (quilt)\nSource: demo\nVersion: 1:2.0-1\nPackage-List:\n libdemo1 deb libs optional arch=any\nFiles:\n 0123 12 demo_2.0.orig.tar.xz\n 4567 13 demo_2.0-1.debian.tar.xz\n", "2.0-1")
	f.Add("# top\none.patch\nCVE-1.patch -p1 # why\n\ntwo.patch\n", "CVE-1.patch")
	f.Add("demo (2.0-2) stable; urgency=medium\n\n  * x\n\n -- A <a@b>  now\n\ndemo (2.0-1) stable; urgency=low\n", "2.0-1")
	f.Add("Package: demo\nStatus: install ok installed\nSource: demo (2.0-1)\nVersion: 2.0-1+b1\n\n", "2.0-1")
	f.Fuzz(func(t *testing.T, text, name string) {
		if d, err := parseDSC(text); err == nil {
			for _, file := range d.files {
				if strings.Contains(file, "/") {
					t.Fatalf("a file %q", file)
				}
			}
		}
		s := parseSeries(text)
		if before, after, err := s.cut([]string{name}); err == nil && !strings.HasPrefix(after, before) {
			t.Fatalf("the series with the fix does not begin as the one without: %q, %q", before, after)
		}
		if rest, err := trimChangelog(text, name); err == nil && !strings.HasSuffix(text, rest) {
			t.Fatal("the changelog's end is not its end")
		}
		for _, v := range binaryVersions(text, name) {
			if !versionPattern.MatchString(v.version) {
				t.Fatalf("a version %q", v.version)
			}
		}
		origin(text)
		withSourceLines(text)
		withSourceTypes(text)
	})
}
