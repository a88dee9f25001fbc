package sample

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const testSecret = "session-key-of-the-test-0123456789abcdef"

// TestSample builds the sample in a folder with a space in its name, runs it
// from its packages and sees the leak; the fixed build does not leak.
func TestSample(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "with space [1]")
	built, err := Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(built.BuildID) != 40 {
		t.Errorf("build-id %q", built.BuildID)
	}
	if twin, err := buildID(built.Twin); err != nil || twin != built.BuildID {
		t.Errorf("the twin has build-id %q (%v), the library %q", twin, err, built.BuildID)
	}
	for _, folder := range []string{built.Before, built.After} {
		if names, _ := filepath.Glob(filepath.Join(escapeGlob(folder), "*.o")); len(names) != 2 {
			t.Errorf("objects in %s: %v", filepath.Base(folder), names)
		}
	}

	root := t.TempDir()
	for _, p := range built.Packages {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", p, root).CombinedOutput(); err != nil {
			t.Fatalf("unpack: %v %s", err, out)
		}
	}
	addr := start(t, filepath.Join(root, DaemonPath), filepath.Dir(filepath.Join(root, LibraryPath)))
	load, err := StartLoad(ctx, addr, 4)
	if err != nil {
		t.Fatal(err)
	}
	finding, err := Probe(ctx, addr, testSecret)
	if err != nil || !finding.Leaked || !strings.Contains(finding.Text, testSecret) {
		t.Errorf("the released library must leak: %+v, %v", finding, err)
	}
	if f, err := Probe(ctx, addr, "another secret"); err == nil {
		t.Errorf("a leak of something else was taken for an answer: %+v", f)
	}
	c, err := Dial(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if text, err := c.Status(); err != nil || text != "echobeat 1.0, 1 requests served" {
		t.Errorf("status %q, %v", text, err)
	}
	waitFor(t, func() bool { return load.Stats().Requests > 20 })
	if s := load.Stop(); s.Failures != 0 || s.Reconnects != 0 {
		t.Errorf("load: %s", s)
	}

	fixed := t.TempDir()
	args := append(append([]string{}, flags...), linkFlags...)
	args = append(args, "-o", filepath.Join(fixed, LibraryFile), filepath.Join(built.After, "answer.o"), filepath.Join(built.After, "session.o"))
	if out, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("link the fixed library: %v %s", err, out)
	}
	addr = start(t, filepath.Join(root, DaemonPath), fixed)
	finding, err = Probe(ctx, addr, testSecret)
	if err != nil || finding.Leaked {
		t.Errorf("the fixed library must not leak: %+v, %v", finding, err)
	}
}

// TestLoadCountsFailures ends the service under the clients.
func TestLoadCountsFailures(t *testing.T) {
	built, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	libs := t.TempDir()
	if err := os.Symlink(built.Library, filepath.Join(libs, LibraryFile)); err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(t.Context())
	addr := startIn(ctx, t, built.Daemon, libs)
	load, err := StartLoad(t.Context(), addr, 2)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return load.Stats().Requests > 0 })
	kill()
	waitFor(t, func() bool { return load.Stats().Failures > 2 })
	if s := load.Stop(); s.LastError == "" {
		t.Errorf("load: %s", s)
	}
}

func start(t *testing.T, daemon, libs string) string { return startIn(t.Context(), t, daemon, libs) }

// startIn runs the service until ctx ends and returns its address.
func startIn(ctx context.Context, t *testing.T, daemon, libs string) string {
	t.Helper()
	dir := t.TempDir()
	secret, port := filepath.Join(dir, "secret"), filepath.Join(dir, "port")
	if err := os.WriteFile(secret, []byte(testSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, daemon, "-s", secret, "-a", port)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libs)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	ended := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { <-ended })
	var number int
	waitFor(t, func() bool {
		text, err := os.ReadFile(port)
		if err != nil {
			return false
		}
		number, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return "127.0.0.1:" + strconv.Itoa(number)
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !what() {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
		time.Sleep(2 * time.Millisecond)
	}
}
