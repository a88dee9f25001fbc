package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the program itself: also when the program
// starts itself as its signer.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
		return
	}
	os.Exit(m.Run())
}

// run runs the program to its end and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector sleeps a second at the end otherwise
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err != nil {
		t.Logf("livemend %s: %v\n%s%s", strings.Join(args, " "), err, &out, &problems)
	}
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// start runs a serving program until the end of the test, when it has to stop
// cleanly on SIGTERM, and returns the address that it prints.
func start(t *testing.T, args ...string) (url string, stop func()) {
	t.Helper()
	var problems bytes.Buffer
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(line), ": listening on ")
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("livemend %s: %v\n%s", args[0], err, &problems)
		}
	}
	t.Cleanup(stop)
	if err != nil || !ok {
		stop()
		t.Fatalf("first line %q, %v\n%s", line, err, &problems)
	}
	return url, stop
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return string(content)
}

func TestPortalFromCeremonyToPublishedContent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder [with] signs")
	keys, data := filepath.Join(dir, "keys"), filepath.Join(dir, "portal")
	mustRun(t, "repo", "init", keys)
	vendor := filepath.Join(dir, "vendor")
	if err := os.WriteFile(vendor, []byte(mustRun(t, "portal", "partner", "add", "vendor", "--vendor", "--data", data)), 0o600); err != nil {
		t.Fatal(err)
	}
	partner := mustRun(t, "portal", "partner", "add", "Partner Inc", "--data", data)
	if !strings.HasPrefix(partner, "lmpc1_") || strings.Count(partner, "\n") != 1 {
		t.Errorf("partner add printed %q", partner)
	}
	// Only what the portal needs is where the portal runs.
	online := filepath.Join(dir, "online")
	if err := os.Mkdir(online, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"snapshot.key", "timestamp.key"} {
		if err := os.Rename(filepath.Join(keys, name), filepath.Join(online, name)); err != nil {
			t.Fatal(err)
		}
	}
	serve := []string{"portal", "serve", "--data", data, "--listen", "127.0.0.1:0",
		"--root", filepath.Join(keys, "root.json"), "--online-keys", online}
	url, stop := start(t, serve...)

	content := filepath.Join(dir, "demo.xml")
	if err := os.WriteFile(content, []byte("<oval_definitions/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	publish := []string{"content", "publish", "--portal", url, "--credential-file", vendor, "--keys", keys, content}
	if out := mustRun(t, publish...); !strings.Contains(out, "published content/demo.xml") || !strings.Contains(out, "signed by 2 keys") {
		t.Errorf("publish printed %q", out)
	}
	if got := get(t, url+"/repo/2.targets.json"); !strings.Contains(got, "content/demo.xml") {
		t.Errorf("2.targets.json = %s", got)
	}
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte(partner), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "content", "publish", "--portal", url, "--credential-file", wrong, "--keys", keys, content); err == nil {
		t.Error("a partner's credential published content")
	}

	// A restart finds everything again.
	stop()
	url, _ = start(t, serve...)
	if got := get(t, url+"/repo/2.targets.json"); !strings.Contains(got, "content/demo.xml") {
		t.Errorf("after a restart 2.targets.json = %s", got)
	}
	publish[3] = url
	if err := os.WriteFile(content, []byte("<oval_definitions></oval_definitions>"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, publish...)
}
