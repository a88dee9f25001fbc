package debian

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testRoot makes a root over the machine's own and its work folder.
func testRoot(t *testing.T) *root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a throw-away root needs root")
	}
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := startRoot(t.Context(), "/", work)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this machine does not let programs make namespaces: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || strings.Contains(string(mounts), work) {
			t.Errorf("something of the root is still mounted (%v)", err)
		}
	})
	return r
}

func (r *root) sh(t *testing.T, layer, script string) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.command(t.Context(), &out, layer, "/bin/sh", "-c", script); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// Nothing written in a root is seen on the machine; layers are kept apart; the
// work folder is shared.
func TestRoot(t *testing.T) {
	const mark = "/etc/livemend-root-test"
	r := testRoot(t)
	r.sh(t, depsLayer, "echo deps > "+mark)
	r.sh(t, "one", "test \"$(cat "+mark+")\" = deps && echo one > "+mark)
	if got := r.sh(t, "two", "cat "+mark); got != "deps\n" {
		t.Errorf("another build's file reads %q", got)
	}
	if got := r.sh(t, "one", "cat "+mark); got != "one\n" {
		t.Errorf("the build's own file reads %q", got)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine's own folder was written (%v)", err)
	}
	r.sh(t, "one", "echo made > "+buildFolder+"/x && test -z \"$(ls -A /usr/local)\" && test ! -e /tmp/*")
	if got, err := os.ReadFile(filepath.Join(r.work, "build/x")); err != nil || string(got) != "made\n" {
		t.Errorf("the build folder holds %q (%v)", got, err)
	}
	env := r.sh(t, "one", "env")
	if !strings.Contains(env, "LC_ALL=C.UTF-8\n") || strings.Contains(env, "SHELL=") {
		t.Errorf("the environment is not a clean one:\n%s", env)
	}
	if err := r.command(t.Context(), &bytes.Buffer{}, "one", "/bin/false"); err == nil {
		t.Error("a command that fails is no error")
	}
}

// A command ends with its context, and everything else with the root.
func TestRootEnds(t *testing.T) {
	r := testRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := make(chan error, 1)
	go func() {
		began <- r.command(ctx, &bytes.Buffer{}, "one", "/bin/sh", "-c", "sleep 1000 & echo > /livemend/begun; sleep 1000")
	}()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := os.Stat(filepath.Join(r.work, "begun")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command did not begin")
		}
		select {
		case err := <-began:
			t.Fatalf("the command ended early: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-began; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
