package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"livemend.dev/livemend/trust"
)

// startPlatform runs a program that serves a platform until stop, when it has to
// end cleanly, and returns everything it printed until it listened.
func startPlatform(t *testing.T, args ...string) (url, said string, stop func()) {
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
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if at, ok := strings.CutPrefix(lines.Text(), "platform: listening on "); ok {
			return at, said, stop
		}
	}
	stop()
	t.Fatalf("livemend %s said\n%s and\n%s", args[0], said, &problems)
	return "", "", nil
}

// packages makes a folder with something that looks like the agent's package.
func packages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "livemend-agent_0.1.0_amd64.deb"), []byte("package"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func digest(t *testing.T, url string) string {
	t.Helper()
	bundle, err := trust.ParseBundle([]byte(get(t, url+"/trust.json")), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Digest()
}

func TestPlatformAndPortalInOneProcess(t *testing.T) {
	serve := []string{"serve", "--data", filepath.Join(t.TempDir(), "a folder with spaces"), "--listen", "127.0.0.1:0", "--packages", packages(t)}
	url, said, stop := startPlatform(t, serve...)
	_, password, ok := strings.Cut(said, "platform: administrator admin, one-time password ")
	if !ok || !strings.Contains(said, "trying out") {
		t.Fatalf("the first start said\n%s", said)
	}
	password, _, _ = strings.Cut(password, "\n")
	body, err := json.Marshal(map[string]string{"name": "admin", "password": password})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(url+"/api/v1/session", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("signing in: %s, %v", resp.Status, err)
	}
	if page := get(t, url+"/"); !strings.Contains(page, "<html") {
		t.Errorf("first page: %.200q", page)
	}
	if script := get(t, url+"/install"); !strings.Contains(script, url) {
		t.Errorf("install script: %.200q", script)
	}
	before := digest(t, url)
	stop()
	url, said, _ = startPlatform(t, serve...)
	if strings.Contains(said, "password") {
		t.Errorf("the second start said\n%s", said)
	}
	if after := digest(t, url); after != before {
		t.Errorf("agents would have to pin %s instead of %s", after, before)
	}
}

func TestPlatformBesideAPortal(t *testing.T) {
	dir := t.TempDir()
	keys, data, director := filepath.Join(dir, "keys"), filepath.Join(dir, "portal"), filepath.Join(dir, "director")
	mustRun(t, "repo", "init", keys)
	mustRun(t, "director", "init", director)
	credential := filepath.Join(dir, "credential")
	if err := os.WriteFile(credential, []byte(mustRun(t, "portal", "partner", "add", "Partner", "--data", data)), 0o600); err != nil {
		t.Fatal(err)
	}
	portal, _ := start(t, "portal", "serve", "--data", data, "--listen", "127.0.0.1:0", "--root", filepath.Join(keys, "root.json"), "--online-keys", keys)
	serve := []string{"platform", "serve", "--data", filepath.Join(dir, "platform"), "--listen", "127.0.0.1:0", "--portal", portal,
		"--credential-file", credential, "--director", director, "--packages", packages(t), "--organisation", "Example Ltd"}
	url, said, stop := startPlatform(t, serve...)
	if !strings.Contains(said, "one-time password") {
		t.Errorf("the first start said\n%s", said)
	}
	before := digest(t, url)
	if out := mustRun(t, "platform", "reset-password", "admin", "--data", filepath.Join(dir, "platform")); !strings.Contains(out, "one-time password") {
		t.Errorf("resetting the password said %q", out)
	}
	if _, err := run(t, "platform", "reset-password", "nobody", "--data", filepath.Join(dir, "platform")); err == nil {
		t.Error("an unknown account got a password")
	}
	stop()
	url, _, _ = startPlatform(t, append(serve, "--portal-root", filepath.Join(keys, "root.json"))...)
	if after := digest(t, url); after != before {
		t.Errorf("the root that the portal gave is not the one that its operator has")
	}
	if out, err := run(t, append(serve, "--tls-cert", credential, "--tls-key", credential)...); err == nil {
		t.Errorf("TLS without an address for agents: %s", out)
	}
}
