package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const sampleDSC = `-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

Format: 3.0 (quilt)
Source: sample
Binary: libsample1, libsample-dev, sample-doc, sample, libsample1-udeb
Version: 1:1.2-3+deb12u1
Package-List:
 libsample-dev deb libdevel optional arch=any
 libsample1 deb libs optional arch=any
 libsample1-udeb udeb debian-installer optional arch=any
 sample deb utils optional arch=any
 sample-doc deb doc optional arch=all
Checksums-Sha256:
 00 11 sample_1.2.orig.tar.xz
Files:
 0123 11 sample_1.2.orig.tar.xz
 4567 22 sample_1.2-3+deb12u1.debian.tar.xz

-----BEGIN PGP SIGNATURE-----

abc=
-----END PGP SIGNATURE-----
`

func TestParseDSC(t *testing.T) {
	d, err := parseDSC(sampleDSC)
	if err != nil {
		t.Fatal(err)
	}
	if d.source != "sample" || d.version != "1:1.2-3+deb12u1" {
		t.Errorf("source %q version %q", d.source, d.version)
	}
	if diff := cmp.Diff([]string{"sample_1.2.orig.tar.xz", "sample_1.2-3+deb12u1.debian.tar.xz"}, d.files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"libsample1", "libsample-dev", "sample"}, d.packages); diff != "" {
		t.Error(diff)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), "content")
	one := &dsc{files: []string{"f"}, hashes: map[string]string{"f": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}}
	if err := one.verify(dir); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "f"), "contents")
	if err := one.verify(dir); err == nil {
		t.Error("another file was taken for the one described")
	}
	for _, bad := range []string{"", "Source: x\n", strings.Replace(sampleDSC, "0123 11 sample", "0123 11 ../sample", 1)} {
		if _, err := parseDSC(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestNames(t *testing.T) {
	if got := dscName("sample", "1:1.2-3+deb12u1"); got != "sample_1.2-3+deb12u1.dsc" {
		t.Error(got)
	}
	for version, want := range map[string]string{"1:1.2-3": "s-1.2", "5": "s-5", "1.2-rc1-4": "s-1.2-rc1"} {
		if got := treeName("s", version); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}

const sampleSeries = `# upstream
a.patch
dir/b.patch -p1

c.patch # the fix
d.patch
`

func TestSeries(t *testing.T) {
	const upToB = "# upstream\na.patch\ndir/b.patch -p1\n\n"
	for _, test := range []struct {
		name          string
		patches       []string
		before, fixes []string
		wrong         string
	}{
		{"last", []string{"debian/patches/d.patch"}, []string{upToB + "c.patch # the fix\n", upToB, "# upstream\na.patch\n", "# upstream\n"}, []string{"d.patch"}, ""},
		{"two, in any order", []string{"debian/patches/d.patch", "debian/patches/dir/b.patch"}, []string{"# upstream\na.patch\n", "# upstream\n"}, []string{"dir/b.patch -p1", "d.patch"}, ""},
		{"first", []string{"debian/patches/a.patch"}, []string{"# upstream\n"}, []string{"a.patch"}, ""},
		{"all of a version", nil, []string{upToB + "c.patch # the fix\n", upToB, "# upstream\na.patch\n", "# upstream\n"}, nil, ""},
		{"unknown", []string{"debian/patches/x.patch", "debian/patches/a.patch"}, nil, nil, "x.patch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list := parseSeries(sampleSeries)
			at, err := list.find(test.patches)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Fatalf("error %v, want one about %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			fixes, ends := list.states(at, maxStates)
			var before []string
			for _, end := range ends {
				before = append(before, joined(list.lines[:end]))
			}
			if diff := cmp.Diff([][]string{test.before, test.fixes}, [][]string{before, fixes}); diff != "" {
				t.Error(diff)
			}
			if _, ends := list.states(at, 1); len(ends) != 1 {
				t.Errorf("%d states, want the limit of 1", len(ends))
			}
		})
	}
}

// What a fix needs is the nearest patch before it that touches one of its files;
// patches come in the order of the series, whoever needs them.
func TestNeededPatches(t *testing.T) {
	dir := t.TempDir()
	diff := func(file string) string { return "--- a/" + file + "\t2026\n+++ b/" + file + "\n@@ -1 +1 @@\n-x\n+y\n" }
	s := states{before: tree{dsc: &dsc{version: "1-1"}}, pool: []string{"one.patch", "two.patch", "other.patch", "fix.patch"}, extra: map[string]string{}}
	for name, file := range map[string]string{"one": "src/a.c", "two": "src/a.c", "other": "src/b.c", "fix": "src/a.c"} {
		s.extra[name+".patch"] = filepath.Join(dir, name)
		write(t, filepath.Join(dir, name), diff(file))
	}
	taken := []string{"fix.patch"}
	for _, want := range []string{"two.patch", "one.patch"} {
		more, err := s.needed("fix.patch", taken, dir)
		if err != nil || more != want {
			t.Fatalf("%q, %v; want %s", more, err, want)
		}
		taken = append(taken, more)
	}
	if more, err := s.needed("fix.patch", taken, dir); err == nil || !strings.Contains(err.Error(), "fix.patch does not apply") {
		t.Errorf("%q, %v", more, err)
	}
	own := parseSeries("base.patch\nlast.patch\n")
	if got := *s.with(own, taken).series; got != "base.patch\nlast.patch\none.patch\ntwo.patch\nfix.patch\n" {
		t.Error(got)
	}
	s.order = []string{"# text", "base.patch", "one.patch", "# more", "two.patch", "other.patch", "fix.patch", "last.patch"}
	if got := *s.with(own, taken).series; got != "base.patch\none.patch\ntwo.patch\nfix.patch\nlast.patch\n" {
		t.Error(got)
	}
	if got := touches("--- /dev/null\n+++ b/new file.c\n"); !got["new file.c"] {
		t.Error(got)
	}
}

// What a fix changes of tests does not keep it from being applied.
// A changelog speaks of a patch by its name, or by a vulnerability or a report
// that stands in front of the diff.
func TestMentions(t *testing.T) {
	const news = "  * Add fix.patch.\n  * CVE-2026-1234: a fix.\n  * Time zones (Closes: #1119919)\n  * Fix a bug in the NOT NULL/IS\n    NULL optimization.\n"
	for _, test := range []struct {
		name, patch string
		want        bool
	}{
		{"fix.patch", "", true},
		{"dir/CVE-2026-1234-part1.patch", "", true},
		{"CVE-2026-12345.patch", "", false},
		{"CVE-2026-123.patch", "", false},
		{"zone.patch", "From: A\nBug-Debian: https://bugs.debian.org/1119919\n--- a/f\n", true},
		{"zone.patch", "Bug-Debian: http://bugs.debian.org/cgi-bin/bugreport.cgi?bug=1119919\n--- a/f\n", true},
		{"zone.patch", "Bug-Debian: https://bugs.debian.org/111991\n--- a/f\n", false},
		{"size.patch", "Fixes CVE-2026-1234.\n---\n f | 1 +\n\n--- a/f\n", true},
		{"news.patch", "Notes\n--- a/NEWS\n+++ b/NEWS\n+ CVE-2026-1234\n", false},
		{"41-fix_a_bug_in_the_NOT_NULL-IS_NULL_optimization.patch", "", true},
		{"fix-a.patch", "", false},
		{"other", "", false},
	} {
		if got := mentions(news, test.name, test.patch); got != test.want {
			t.Errorf("%s mentioned: %v\n%s", test.name, got, test.patch)
		}
	}
}

func TestLeftOut(t *testing.T) {
	const n, y = false, true
	list := parseSeries("one\ntwo\n# text\nthree\nfour\n")
	for _, test := range []struct {
		what  string
		named []bool
		fixes []int
		want  [][]bool
	}{
		{"nothing is named", []bool{n, n, n, n, n}, nil, nil},
		{"all from one on", []bool{n, y, n, y, y}, []int{3}, [][]bool{{n, y, n, y, y}}},
		{"patches of its own use at the end", []bool{n, y, n, y, n}, nil, [][]bool{{n, y, n, y, n}, {n, y, n, y, y}}},
		{"not all are named", []bool{n, y, n, n, y}, nil, [][]bool{{n, y, n, y, y}, {n, y, n, n, y}}},
		{"the fix is not named", []bool{n, y, n, n, y}, []int{3}, [][]bool{{n, y, n, y, y}}},
		{"the fix is older", []bool{n, n, n, n, y}, []int{1}, nil},
	} {
		if diff := cmp.Diff(test.want, leftOut(list, test.named, test.fixes), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.what, diff)
		}
	}
}

func TestWithoutTests(t *testing.T) {
	part := func(name string) string {
		return "--- a/" + name + "\n+++ b/" + name + "\n@@ -1,2 +1,2 @@\n-old\n+new\n--- no header\n"
	}
	git := func(name string) string {
		return "diff --git a/" + name + " b/" + name + "\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/" + name + "\n@@ -0,0 +1 @@\n+new\n"
	}
	code := "Subject: text\n---\n lib/a.c | 2 +-\n\n" + part("lib/a.c") + git("src/b.c")
	for _, other := range []string{part("tests/data/Makefile.inc"), git("lib/tests/c.c"), part("NEWS"), git("README.md"), part("docs/x")} {
		if got := withoutTests(code + other + part("lib/last.c")); got != code+part("lib/last.c") {
			t.Errorf("%q became %q", other, got)
		}
	}
	if got := withoutTests(code); got != code {
		t.Errorf("%q", got)
	}
}

// A source gets the series, the patches and the end of the changelog that a tree
// asks for.
func TestAddedPatches(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tree/debian/source/format"), "3.0 (quilt)\n")
	write(t, filepath.Join(dir, "tree/debian/changelog"), "sam (2-1) stable; urgency=low\n\nsam (1-1) stable; urgency=low\n")
	write(t, filepath.Join(dir, "tree/debian/patches/series"), sampleSeries)
	write(t, filepath.Join(dir, "tree/debian/patches/dir/b.patch"), "b")
	write(t, filepath.Join(dir, "new.patch"), "new")
	open := func() *os.Root {
		t.Helper()
		root, err := os.OpenRoot(filepath.Join(dir, "tree"))
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	source := open()
	if err := copyPatches(source, filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "kept/dir/b.patch")); err != nil || string(b) != "b" {
		t.Errorf("%q, %v", b, err)
	}
	series := sampleSeries + "livemend/0.patch\n"
	fresh := tree{dsc: &dsc{version: "2-1"}, series: &series, extra: map[string]string{"livemend/0.patch": filepath.Join(dir, "new.patch")}}
	if err := fresh.adjust(source, "1-1"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"debian/patches/series": series, "debian/patches/livemend/0.patch": "new",
		"debian/changelog": "sam (1-1) stable; urgency=low\n",
	} {
		if b, err := source.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	one, err := fresh.inputs()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "new.patch"), "newer")
	if two, err := fresh.inputs(); err != nil || one == two {
		t.Errorf("another patch has the same digest (%v)", err)
	}
	write(t, filepath.Join(dir, "tree/debian/source/format"), "1.0\n")
	if err := fresh.adjust(source, "1-1"); err == nil {
		t.Error("a source that applies no patches was given some")
	}
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTrimChangelog(t *testing.T) {
	const text = "sample (2-1) stable; urgency=medium\n\n  * New (2-0).\n\n -- P <p@x>  date\n\nsample (1:1-1) stable; urgency=low\n\n  * Old.\n"
	got, err := trimChangelog(text, "1:1-1")
	if err != nil || !strings.HasPrefix(got, "sample (1:1-1) stable") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := trimChangelog(text, "2-1"); err != nil || got != text {
		t.Errorf("the newest version was trimmed to %q (%v)", got, err)
	}
	if _, err := trimChangelog(text, "2-0"); err == nil {
		t.Error("a version in the text of an entry was taken for an entry")
	}
}

func TestOptionsCheck(t *testing.T) {
	good := Options{Package: "xz-utils", From: "1-1", To: "1-2", Library: "liblzma.so.5", Work: t.TempDir()}
	for name, spoil := range map[string]func(*Options){
		"option as package":  func(o *Options) { o.Package = "-oDpkg::x" },
		"path as package":    func(o *Options) { o.Package = "../x" },
		"no version":         func(o *Options) { o.From = "" },
		"no other version":   func(o *Options) { o.To = "" },
		"same versions":      func(o *Options) { o.To = o.From },
		"shell in version":   func(o *Options) { o.To = "1;reboot" },
		"path as library":    func(o *Options) { o.Library = "lib/x.so" },
		"pattern as library": func(o *Options) { o.Library = "*" },
		"diff and version":   func(o *Options) { o.Diffs = []string{"source_test.go"} },
		"no diff":            func(o *Options) { o.To, o.Diffs = "", []string{"no such file"} },
		"diff and patch": func(o *Options) {
			o.To, o.Diffs, o.Patches = "", []string{"source_test.go"}, []string{"debian/patches/a.patch"}
		},
		"patch elsewhere":     func(o *Options) { o.Patches = []string{"debian/patches/../../x"} },
		"mount option as dir": func(o *Options) { o.Work = "/tmp/a,b:c" },
	} {
		o := good
		spoil(&o)
		if err := o.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Rebuilds of the same source have versions of their own; the one that is
// installed counts as well.
func TestBinaryVersions(t *testing.T) {
	const show = `Package: libx
Source: x (1:2-3)
Version: 1:2-3+b1
Description: a library
 Version: 9

Package: libx
Version: 1:2-4

Package: libx
Version: 1:2-3

Package: libx
Status: install ok installed
Source: x (1:2-3)
Version: 1:2-3+b1

Package: libx
Source: x (1:2-3)
Version: -o=1
`
	want := []binaryVersion{{"1:2-3+b1", true}, {"1:2-3", false}}
	if diff := cmp.Diff(want, binaryVersions(show, "1:2-3"), cmp.AllowUnexported(binaryVersion{})); diff != "" {
		t.Error(diff)
	}
	if got := binaryVersions("", "1"); got != nil {
		t.Errorf("%v from nothing", got)
	}
}

func TestFindBinary(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "usr/lib/libx.so.1.2"), "x")
	write(t, filepath.Join(tree, "usr/share/doc/libx/README"), "x")
	link := func(to, at string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(tree, at)); err != nil {
			t.Fatal(err)
		}
	}
	link("libx.so.1.2", "usr/lib/libx.so.1")
	link("/etc/passwd", "usr/lib/liby.so.1")
	if got, err := findBinary(tree, "libx.so.1"); err != nil || got != filepath.Join(tree, "usr/lib/libx.so.1.2") {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"liby.so.1", "libz.so.1"} {
		if got, err := findBinary(tree, name); err != nil || got != "" {
			t.Errorf("%s: %q, %v; want nothing", name, got, err)
		}
	}
	write(t, filepath.Join(tree, "usr/lib/other/libx.so.1.2"), "y")
	if _, err := findBinary(tree, "libx.so.1.2"); err == nil {
		t.Error("two files of the same name: one was chosen")
	}
}
