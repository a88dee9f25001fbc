package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	tests := []struct {
		name          string
		fixes         []string
		before, after string
		wrong         string
	}{
		{"last", []string{"debian/patches/d.patch"}, "# upstream\na.patch\ndir/b.patch -p1\n\nc.patch # the fix\n", sampleSeries, ""},
		{"later ones are left out", []string{"debian/patches/dir/b.patch"}, "# upstream\na.patch\n", "# upstream\na.patch\ndir/b.patch -p1\n", ""},
		{"two together, in any order", []string{"debian/patches/c.patch", "debian/patches/dir/b.patch"}, "# upstream\na.patch\n", "# upstream\na.patch\ndir/b.patch -p1\n\nc.patch # the fix\n", ""},
		{"first", []string{"debian/patches/a.patch"}, "# upstream\n", "# upstream\na.patch\n", ""},
		{"gap", []string{"debian/patches/a.patch", "debian/patches/c.patch"}, "", "", "dir/b.patch lies between"},
		{"unknown", []string{"debian/patches/x.patch", "debian/patches/a.patch"}, "", "", "x.patch"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before, after, err := parseSeries(sampleSeries).cut(test.fixes)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Fatalf("error %v, want one about %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{test.before, test.after}, []string{before, after}); diff != "" {
				t.Error(diff)
			}
		})
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
		"option as package":   func(o *Options) { o.Package = "-oDpkg::x" },
		"path as package":     func(o *Options) { o.Package = "../x" },
		"no version":          func(o *Options) { o.From = "" },
		"no other version":    func(o *Options) { o.To = "" },
		"same versions":       func(o *Options) { o.To = o.From },
		"shell in version":    func(o *Options) { o.To = "1;reboot" },
		"path as library":     func(o *Options) { o.Library = "lib/x.so" },
		"pattern as library":  func(o *Options) { o.Library = "*" },
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
