package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"livemend.dev/livemend/blob"
)

func open(t *testing.T) (*blob.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "files")
	d, err := blob.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, path
}

func put(t *testing.T, d *blob.Dir, name, content string) {
	t.Helper()
	if err := d.Put(t.Context(), name, strings.NewReader(content), blob.Want{Max: 100}); err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
}

func read(t *testing.T, d *blob.Dir, name string) string {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Fatalf("Open(%q): %v", name, err)
	}
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestPutOpenStatListRemove(t *testing.T) {
	d, _ := open(t)
	put(t, d, "a/b/c.txt", "one")
	put(t, d, "a/b/c.txt", "two!")
	put(t, d, "z", "")
	if got := read(t, d, "a/b/c.txt"); got != "two!" {
		t.Errorf("content = %q", got)
	}
	info, err := d.Stat("a/b/c.txt")
	if err != nil || info.Size != 4 || info.Name != "a/b/c.txt" {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	for folder, want := range map[string]int{"": 2, "a": 1, "a/b": 1, "nothing": 0} {
		if list, err := d.List(folder); err != nil || len(list) != want {
			t.Errorf("List(%q) = %v, %v; want %d files", folder, list, err, want)
		}
	}
	if err := d.Remove("z"); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"Remove": d.Remove("z"), "Stat": second(d.Stat("z")), "Open": second(d.Open("z")),
		"Stat of a folder": second(d.Stat("a")), "Open of a folder": second(d.Open("a")), "Remove of a folder": d.Remove("a"),
	} {
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestBadContentLeavesWhatWasThere(t *testing.T) {
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	d, path := open(t)
	put(t, d, "f", "before")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		ctx  context.Context
		r    io.Reader
		want blob.Want
		err  error
	}{
		{"too large", t.Context(), strings.NewReader("abcd"), blob.Want{Max: 3}, blob.ErrTooLarge},
		{"other hash", t.Context(), strings.NewReader("abd"), blob.Want{Max: 3, SHA256: abc}, blob.ErrHash},
		{"reader fails", t.Context(), iotest.ErrReader(broken), blob.Want{Max: 3}, broken},
		{"context ended", ended, strings.NewReader("abc"), blob.Want{Max: 3}, context.Canceled},
	} {
		if err := d.Put(c.ctx, "f", c.r, c.want); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if got := read(t, d, "f"); got != "before" {
			t.Errorf("%s: content is now %q", c.name, got)
		}
	}
	if err := d.Put(t.Context(), "f", strings.NewReader("abc"), blob.Want{Max: 3, SHA256: abc}); err != nil {
		t.Errorf("the right content: %v", err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want only f", entries, err)
	}
}

func TestNames(t *testing.T) {
	d, path := open(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../secret", "a/../../secret", "a/..", ".hidden", "a/.hidden",
		"a\x00b", "a b", "a\\b", "ä", "a\n", strings.Repeat("x", blob.MaxName+1), strings.Repeat("a/", blob.MaxDepth) + "a",
	} {
		errs := []error{d.Put(t.Context(), bad, strings.NewReader(""), blob.Want{}), second(d.Open(bad)), second(d.Stat(bad)), d.Remove(bad)}
		for _, err := range errs {
			if !errors.Is(err, blob.ErrName) {
				t.Errorf("%q: %v, want ErrName", bad, err)
			}
		}
	}
	for _, good := range []string{"a", "A-1/b_2/c~3+4.tar.gz", strings.Repeat("a/", blob.MaxDepth-1) + "a"} {
		if !blob.ValidName(good) {
			t.Errorf("%q is refused", good)
		}
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	d, path := open(t)
	outside := filepath.Join(filepath.Dir(path), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Open("link/secret"); err == nil {
		t.Errorf("a link leads out of the folder: %v", f.Close())
	}
	if err := d.Put(t.Context(), "link/new", strings.NewReader(""), blob.Want{}); err == nil {
		t.Error("a file was stored outside the folder")
	}
}

func TestReadersSeeWholeFiles(t *testing.T) {
	d, _ := open(t)
	contents := []string{strings.Repeat("a", 80_000), strings.Repeat("b", 80_000)}
	write := func(s string) error {
		return d.Put(t.Context(), "f", strings.NewReader(s), blob.Want{Max: 1 << 20})
	}
	if err := write(contents[0]); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range contents {
		all.Go(func() {
			for range 10 {
				if err := write(contents[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if got := read(t, d, "f"); got != contents[0] && got != contents[1] {
			t.Fatalf("a mixed or short file of %d bytes", len(got))
		}
	}
	all.Wait()
}

func TestOpenRemovesOnlyOldLeftovers(t *testing.T) {
	d, path := open(t)
	put(t, d, "kept", "x")
	for name, age := range map[string]time.Duration{".new-old": 48 * time.Hour, ".new-fresh": 0} {
		file := filepath.Join(path, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte{1}, 10), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := blob.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(path, ".new-old")); err == nil {
		t.Error("an old leftover stays")
	}
	if _, err := os.Stat(filepath.Join(path, ".new-fresh")); err != nil {
		t.Error("the file of a running writer is gone")
	}
}
