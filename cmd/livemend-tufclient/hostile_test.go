package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/trust"
)

// kinds are the files that a client asks for, as parts of their addresses.
var kinds = []string{"root.json", "timestamp.json", "snapshot.json", "targets.json", "A.json", ".file"}

// delegating is a repository whose one target is in a delegated role.
func delegating(t *testing.T) *repository {
	t.Helper()
	r := newRepository(t)
	r.delegate("targets", delegation{name: "A"})
	r.add("A", "file", strings.Repeat("content", 3000))
	r.publish(r.all()...)
	r.rotate("timestamp")
	r.publish("root", "timestamp")
	return r
}

// TestEndlessAnswers serves each kind of file without an end.
func TestEndlessAnswers(t *testing.T) {
	for _, kind := range kinds {
		r := delegating(t)
		sent := 0
		r.answer = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, kind) {
				return false
			}
			chunk := bytes.Repeat([]byte(" "), 1<<16)
			for sent = 0; sent < 64<<20; sent += len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					break
				}
			}
			return true
		}
		u := started(t, r)
		start := time.Now()
		want := errLong
		if kind == ".file" {
			want = trust.ErrLength
		}
		u.refused(u.download(r, "file"), want)
		u.wantHave()
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: it took %s", kind, took)
		}
		// What is sent may be in buffers of the system, so more is sent than taken.
		if limit := trust.MaxTargets + 32<<20; sent > limit {
			t.Errorf("%s: %d bytes were taken", kind, sent)
		}
	}
}

// TestLengthsThatLie announces more than may be, or more than comes.
func TestLengthsThatLie(t *testing.T) {
	for _, kind := range kinds {
		for _, length := range []int64{1 << 40, 1 << 14} {
			r := delegating(t)
			r.answer = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, kind) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(length))
				_, _ = io.WriteString(w, "{") // then the connection ends
				return true
			}
			u := started(t, r)
			u.must(u.download(r, "file"), 1)
			u.wantHave()
		}
	}
}

// TestSlowServer sends a byte now and then, or none at all.
func TestSlowServer(t *testing.T) {
	for _, kind := range kinds {
		for _, trickle := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", kind, trickle), func(t *testing.T) {
				t.Parallel()
				r := delegating(t)
				r.answer = func(w http.ResponseWriter, req *http.Request) bool {
					if !strings.HasSuffix(req.URL.Path, kind) {
						return false
					}
					for req.Context().Err() == nil {
						if trickle {
							if _, err := w.Write([]byte(" ")); err != nil {
								break
							}
							w.(http.Flusher).Flush()
						}
						select {
						case <-req.Context().Done():
						case <-time.After(20 * time.Millisecond):
						}
					}
					return true
				}
				u := started(t, r)
				u.patience = "500ms"
				u.refused(u.download(r, "file"), errSlow)
				u.wantHave()
				r.answer = nil
				u.patience = "20s"
				u.must(u.download(r, "file"), 0)
			})
		}
	}
}

// TestMetadataThatTakesTooLong is sent steadily, and for ever.
func TestMetadataThatTakesTooLong(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-req.Context().Done():
			case <-time.After(time.Millisecond):
			}
		}
	}))
	defer h.Close()
	w := newWeb(h.URL, time.Hour)
	w.longest = 200 * time.Millisecond
	if _, err := w.Fetch(t.Context(), "timestamp.json", 1<<40); !errors.Is(err, errSlow) {
		t.Errorf("got %v, want errSlow", err)
	}
}

// TestKilledAtEveryStep kills the program while it waits for each of the files
// in turn. Whatever was stored until then, the next run ends well.
func TestKilledAtEveryStep(t *testing.T) {
	for _, kind := range kinds {
		r := delegating(t)
		r.add("targets", "unrelated", "content")
		u := started(t, r)
		u.must(u.download(r, "file"), 0)
		// Everything is new for the second time.
		r.add("A", "file", "new content")
		r.rotate("snapshot")
		r.publish("root")
		r.publish(r.all()...)
		ctx, kill := context.WithTimeout(t.Context(), time.Minute)
		r.answer = func(_ http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, kind) {
				return false
			}
			kill()
			<-req.Context().Done()
			return true
		}
		r.settle()
		err := exec.CommandContext(ctx, program, "--metadata-url", r.url+"/metadata", "--metadata-dir", u.metadata,
			"--target-name", "file", "--target-base-url", r.url+"/targets", "--target-dir", u.targets, "download").Run()
		if err == nil || ctx.Err() != context.Canceled {
			t.Fatalf("%s: the program was not killed while it waited: %v, %v", kind, err, ctx.Err())
		}
		r.settle()
		r.answer = nil
		u.must(u.download(r, "file"), 0)
		have := u.leftovers()
		if b, err := os.ReadFile(u.targets + "/file"); string(b) != "new content" {
			t.Errorf("%s: %q, %v", kind, b, err)
		}
		u.wantTrusted("root 3", "timestamp 4", "snapshot 3", "targets 3", "A 2")
		if kind != ".file" && have > 0 {
			t.Errorf("%s: %d unfinished files are left", kind, have)
		}
	}
}

// leftovers removes and counts the files that a killed run had not finished.
func (u *user) leftovers() int {
	u.Helper()
	n := 0
	for _, dir := range []string{u.metadata, u.targets} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			u.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".new-") {
				n++
				if err := os.Remove(dir + "/" + e.Name()); err != nil {
					u.Error(err)
				}
			}
		}
	}
	return n
}

// TestFullDisk gives the folders fewer and fewer pages, so that storing fails at
// each of the files in turn. What was stored stays good.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	defer func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	r := delegating(t)
	u := newUser(t)
	u.metadata, u.targets = disk+"/metadata", disk+"/targets"
	if err := os.Mkdir(u.targets, 0o700); err != nil {
		t.Fatal(err)
	}
	failed, done := 0, false
	for pages := 0; pages < 64 && !done; pages++ {
		// The ballast leaves so many pages.
		if err := os.WriteFile(disk+"/ballast", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		fill(t, disk+"/ballast", pages)
		if u.init(r.published["root"][0]) != 0 || u.download(r, "file") != 0 {
			failed++
			if !strings.Contains(u.said, unix.ENOSPC.Error()) {
				t.Fatalf("%d pages: refused for another reason: %s", pages, u.said)
			}
			if have := u.have(); len(have) > 0 {
				t.Errorf("%d pages: the download failed, but there is %d bytes of %q", pages, len(have[0]), have[0][:10])
			}
			continue
		}
		done = true
	}
	if failed < 5 || !done {
		t.Errorf("storing failed %d times, then succeeded: %v", failed, done)
	}
	u.wantTrusted("root 2", "timestamp 3", "snapshot 2", "targets 2", "A 1")
}

// fill writes to the file until its file system has only so many pages left.
func fill(t *testing.T, path string, pages int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for {
		var s unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
			t.Fatal(err)
		}
		if s.Bavail <= uint64(pages) {
			return
		}
		if _, err := f.Write(page); err != nil {
			return
		}
	}
}
