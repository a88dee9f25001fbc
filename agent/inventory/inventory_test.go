package inventory

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"livemend.dev/livemend/wire"
)

// buildID is the standard library's opinion. Programs made by Go have a build-id
// outside of their note segments, where no loader looks: it does not count.
func buildID(t testing.TB, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	s := f.Section(".note.gnu.build-id")
	if s == nil {
		return ""
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_NOTE && p.Off <= s.Offset && s.Offset+s.Size <= p.Off+p.Filesz {
			if b, err := s.Data(); err == nil && len(b) > 16 {
				return hex.EncodeToString(b[16:])
			}
		}
	}
	return ""
}

func TestBuildIDsOfThisSystem(t *testing.T) {
	paths, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/lib*.so*")
	if err != nil {
		t.Fatal(err)
	}
	bins, err := filepath.Glob("/usr/bin/[a-d]*")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range append(paths, bins...) {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		got, ok := readBuildID(f)
		f.Close()
		if want := buildID(t, path); got != want || ok != (want != "") {
			t.Errorf("%s: build-id %q, want %q", path, got, want)
		} else if ok {
			compared++
		}
	}
	if compared == 0 {
		t.Skip("this system has no library with a build-id where it was looked for")
	}
}

func FuzzReadBuildID(f *testing.F) {
	if b, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(b[:min(len(b), 4096)])
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, ok := readBuildID(bytes.NewReader(b))
		if ok && (len(id) < 16 || len(id) > 128) {
			t.Errorf("build-id %q accepted", id)
		}
	})
}

func TestSnapshotOfThisSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: other processes' files cannot be read")
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	c := New()
	start := time.Now()
	s, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := time.Since(start)
	start = time.Now()
	if _, err := c.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d libraries, %d packages; %v, then %v", len(s.Libraries), len(s.Packages), first, time.Since(start))
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "exe"))
	if err != nil {
		t.Fatal(err)
	}
	want := buildID(t, exe)
	if !slices.ContainsFunc(s.Libraries, func(l wire.Library) bool { return l.BuildID == want && l.Path == exe && l.Processes >= 1 }) {
		t.Errorf("a running program (%s, %s) is not in the inventory", exe, want)
	}
	body, whole := Encode(s)
	got, err := wire.DecodeSnapshot(body)
	if err != nil || !whole || len(got.Libraries) != len(s.Libraries) || got.Facts != s.Facts {
		t.Errorf("the snapshot does not survive its encoding: %v", err)
	}
}

func TestEncodeFits(t *testing.T) {
	var s wire.Snapshot
	for i := range wire.MaxPackages {
		s.Packages = append(s.Packages, wire.Package{Name: fmt.Sprint("package-", i), Version: strings.Repeat("1", 100)})
	}
	body, whole := Encode(s)
	if whole || len(body) > wire.MaxFrame {
		t.Errorf("%d bytes, whole %v", len(body), whole)
	}
	if got, err := wire.DecodeSnapshot(body); err != nil || len(got.Packages) < 1000 {
		t.Errorf("%d packages left, %v", len(got.Packages), err)
	}
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"7f00-7f10 r-xp 00001000 fe:01 123    /usr/lib/libx.so.1\n":        {"7f00-7f10", mapped{"fe:01", "123"}, "/usr/lib/libx.so.1", false},
		"7f00-7f10 r-xp 00001000 fe:01 123    /usr/lib/a b.so (deleted)\n": {"7f00-7f10", mapped{"fe:01", "123"}, "/usr/lib/a b.so", true},
		"7f00-7f10 r-xp 00001000 00:2f 9 /x\xff\\012\n":                    {"7f00-7f10", mapped{"00:2f", "9"}, "/x?\\012", false},
		"7f00-7f10 r--p 00001000 fe:01 123    /usr/lib/libx.so.1\n":        {},
		"7f00-7f10 r-xp 00000000 00:00 0\n":                                {},
		"7f00-7f10 r-xp 00000000 00:00 0    [vdso]\n":                      {},
		"":     {},
		"r-xp": {},
	} {
		got, ok := parseMapping(line)
		if got != want || ok != (want != mapping{}) {
			t.Errorf("parseMapping(%q) = %+v, %v, want %+v", line, got, ok, want)
		}
	}
}

const status = `Package: liblzma5
Status: install ok installed
Source: xz-utils
Version: 5.4.1-1

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1

Package: linux-image-6.1.0-1-amd64
Status: hold ok installed
Source: linux-signed-amd64 (6.1.1+1)
Description: a kernel
 Package: not-a-package
Version: 6.1.1-1`

func TestParseStatus(t *testing.T) {
	long := "Package: long\nDescription: " + strings.Repeat("x", 3*maxStatusLine) + "\nStatus: install ok installed\nVersion: 2\n\n"
	got, err := parseStatus(strings.NewReader(long + status))
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.Package{{Name: "long", Version: "2"}, {Name: "liblzma5", Version: "5.4.1-1", Source: "xz-utils"},
		{Name: "linux-image-6.1.0-1-amd64", Version: "6.1.1-1", Source: "linux-signed-amd64"}}
	if !slices.Equal(got, want) {
		t.Errorf("parseStatus = %+v, want %+v", got, want)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a\nb\x00c": "a?b?c", "\xff\xfe": "??", "größe": "größe", "0123456789ü": "0123456789"} {
		if got := clean(in, 11); got != want || !utf8.ValidString(got) {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// A file that does not answer costs one wait, not the round.
func TestFileThatDoesNotAnswer(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newReader()
	never := func(fileVersion) (string, bool) { return "", false }
	if a := r.read("1:1", fifo, never); a.known {
		t.Error("a pipe has a build-id")
	}
	r.quiet["1:2"] = true
	if a := r.read("1:2", "/bin/true", never); a.known {
		t.Error("a device that does not answer was asked again")
	}
	asked := 0
	remember := func(fileVersion) (string, bool) { asked++; return "remembered", true }
	if a := r.read("1:3", "/bin/true", remember); a.id != "remembered" || asked != 1 {
		t.Errorf("a known file was read again: %+v", a)
	}
}
