package scanner

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func unpack(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("not a gzip file: %v", err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("does not unpack: %v", err)
	}
	return out
}

// The standard library is the judge of what pack writes.
func TestPackIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SliceOfN(rapid.Byte(), 0, 400)
		var data []byte
		for range rapid.IntRange(0, 12).Draw(t, "pieces") {
			p := piece.Draw(t, "piece")
			data = append(data, bytes.Repeat(p, rapid.IntRange(0, 40).Draw(t, "times"))...)
		}
		if got := unpack(t, pack(data)); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came back as %d", len(data), len(got))
		}
	})
}

func TestPackReachesAcrossItsWindow(t *testing.T) {
	var b bytes.Buffer
	for i := range 30_000 {
		b.WriteString("<definition id=\"oval:test:")
		b.WriteByte(byte('0' + i*7%10))
		b.WriteByte(byte('0' + i*i%10))
		b.WriteString("\" result=\"true\"/>\n")
	}
	packed := pack(b.Bytes())
	if got := unpack(t, packed); !bytes.Equal(got, b.Bytes()) {
		t.Fatal("other bytes came back")
	}
	if len(packed)*8 > b.Len() {
		t.Errorf("%d bytes of XML became %d", b.Len(), len(packed))
	}
}

// script makes a program that stands in OpenSCAP's place.
func script(t *testing.T, body string) Runner {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "scanner-test-") // another user must be able to reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "oscap")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755)); err != nil {
		t.Fatal(err)
	}
	return Runner{Dir: filepath.Join(dir, "run"), Program: path}
}

func TestRunWithoutRights(t *testing.T) {
	t.Setenv("LIVEMEND_SECRET", "secret")
	r := script(t, `{ id -u; id -G; env; touch "$5" 2>&1 && echo may change its content; cat "$5"; } > "$4"`)
	// What a run left that the agent did not survive goes away, too.
	if err := os.MkdirAll(filepath.Join(r.Dir, "scan-1", "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	report, err := r.Run(t.Context(), OpenSCAP, []byte("the definitions"))
	if err != nil {
		t.Fatal(err)
	}
	got := string(unpack(t, report))
	if os.Geteuid() == 0 {
		if !strings.HasPrefix(got, "65534\n65534\n") || strings.Contains(got, "may change") {
			t.Errorf("the scanner runs with rights:\n%s", got)
		}
	}
	if strings.Contains(got, "secret") || !strings.HasSuffix(got, "the definitions") {
		t.Errorf("wrong environment or content:\n%s", got)
	}
	if left, err := os.ReadDir(r.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		want string
	}{
		"failure":   {"echo broken content >&2; exit 2", "broken content"},
		"no report": {"exit 0", ErrResult.Error()},
		"blind":     {`echo "E: oscap:     dpkginfo_init has failed." >&2; echo "<x/>" >"$4"`, "dpkginfo_init has failed"},
		"link":      {`ln -s /etc/passwd "$4"`, ErrResult.Error()},
		"pipe":      {`mkfifo "$4"`, ErrResult.Error()},
	} {
		if _, err := script(t, tt.body).Run(t.Context(), OpenSCAP, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := (Runner{}).Run(t.Context(), "sh", nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown scanner: %v", err)
	}
	if _, err := (Runner{Program: "/nonexistent"}).Run(t.Context(), OpenSCAP, nil); !errors.Is(err, ErrAbsent) {
		t.Errorf("absent scanner: %v", err)
	}
}

func TestRunEndsWithItsContextAndTakesChildrenAlong(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "started")
	r := script(t, "sleep 1000 & echo $! > "+fifo+".tmp; mv "+fifo+".tmp "+fifo+"; wait")
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		for {
			if _, err := os.Stat(fifo); err == nil || ctx.Err() != nil {
				stop()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if _, err := r.Run(ctx, OpenSCAP, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run = %v, want Canceled", err)
	}
	pid, err := os.ReadFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join("/proc", strings.TrimSpace(string(pid)), "stat")
	for end := time.Now().Add(10 * time.Second); ; {
		b, err := os.ReadFile(state)
		if err != nil || strings.Contains(string(b), ") Z ") { // gone, or only waiting to be forgotten
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a child of the scanner lives on: %s", b)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRealScanner(t *testing.T) {
	if _, err := os.Stat("/usr/bin/oscap"); err != nil {
		t.Skip("OpenSCAP is not installed: install openscap-scanner to run this")
	}
	content, err := os.ReadFile("testdata/family.xml")
	if err != nil {
		t.Fatal(err)
	}
	r := script(t, "")
	r.Program = ""
	report, err := r.Run(t.Context(), OpenSCAP, content)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(unpack(t, report)); !strings.Contains(got, "oval_results") || !strings.Contains(got, `result="true"`) {
		t.Errorf("not a report of OVAL results: %.300s", got)
	}
}
