package agent_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

func TestScan(t *testing.T) {
	if _, err := os.Stat("/usr/bin/oscap"); err != nil {
		t.Skip("OpenSCAP is not installed: install openscap-scanner to run this")
	}
	definitions, err := os.ReadFile("scanner/testdata/family.xml")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t)
	content := patch.Content{Scanner: "openscap", Format: "oval-definitions-5.11", Title: "test"}
	p.publish(map[string][]byte{"content/test.xml": definitions}, func(string) trust.Target { return trust.Target{Custom: content.Custom()} })
	a := newAgent(t, p)
	a.enrol()
	a.start()
	order := func(scanner string) []byte {
		return p.order(trust.Scan, "content/test.xml", func(m *trust.Manifest) {
			m.Length, m.SHA256, m.Scanner = int64(len(definitions)), sha(definitions), scanner
		})
	}
	p.work <- order("openscap")
	r := p.report()
	wantOutcome(t, r, wire.Done, "")
	z, err := gzip.NewReader(bytes.NewReader(r.Scan))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || !bytes.Contains(b, []byte("oval_results")) {
		t.Errorf("not a scanner's report: %.200s, %v", b, err)
	}
	a.writePolicy(`{"scanners":["other"]}`)
	p.work <- order("other") // allowed here, but the content is signed for openscap
	wantOutcome(t, p.report(), wire.Refused, "disagree")
}

// program is the agent as people run it.
type program struct {
	t    *testing.T
	path string
	args []string
}

func newProgram(t *testing.T) program {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the agent needs root: it looks into other processes")
	}
	dir := t.TempDir()
	return program{t, build(t, "livemend-agent"), []string{"--state", dir + "/state", "--run=" + dir + "/run", "--policy", dir + "/policy.json"}}
}

func (p program) command(env []string, words ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), p.path, append(words, p.args...)...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
	return cmd
}

// run runs a subcommand to its end.
func (p program) run(env []string, words ...string) (out string, status int) {
	p.t.Helper()
	cmd := p.command(env, words...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func TestProgram(t *testing.T) {
	platform, s := newPlatform(t), newSample(t)
	platform.publishSample(s, 1)
	proc := s.start()
	agent := newProgram(t)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(platform.credential.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin := "LIVEMEND_TRUST=" + platform.bundle.Digest()
	for _, step := range []struct {
		name   string
		env    []string
		words  []string
		status int
		says   string
	}{
		{"version", nil, []string{"version"}, 0, "livemend-agent"},
		{"help", nil, nil, 0, "is-covered"},
		{"unknown word", nil, []string{"destroy"}, 1, "nothing was done"},
		{"unknown flag", nil, []string{"run", "--forever=1s"}, 1, "nothing was done"},
		{"run before enrolment", nil, []string{"run"}, 1, "not enrolled"},
		{"status before any run", nil, []string{"status"}, 1, "no agent has run"},
		{"default policy", nil, []string{"policy", "check"}, 0, "scanner allowed: openscap"},
		{"no pin", nil, []string{"enrol", "--server", platform.url}, 1, "LIVEMEND_TRUST"},
		{"no key", []string{pin}, []string{"enrol", "--server", platform.url}, 1, "LIVEMEND_KEY"},
		{"mistyped key", []string{pin, "LIVEMEND_KEY=lmk1_x"}, []string{"enrol", "--server", platform.url}, 1, "copied whole"},
		{"wrong pin", []string{pin + "0", "LIVEMEND_KEY_FILE=" + keyFile}, []string{"enrol", "--server", platform.url}, 1, "nothing was kept"},
		{"enrol", []string{pin, "LIVEMEND_KEY_FILE=" + keyFile}, []string{"enrol", "--server", platform.url + "/"}, 0, "enrolled: this system is S-"},
		{"enrol again", []string{pin, "LIVEMEND_KEY=" + platform.credential.Text()}, []string{"enrol", "--server", platform.url}, 0, "enrolled: this system is S-"},
		{"not covered", nil, []string{"is-covered", cve}, 1, "is not covered"},
	} {
		if out, status := agent.run(step.env, step.words...); status != step.status || !strings.Contains(out, step.says) {
			t.Errorf("%s: exit %d, %q; want exit %d and %q", step.name, status, out, step.status, step.says)
		}
	}

	running := agent.command(nil, "run")
	// As a hardened server's root shell starts it.
	running.Path, running.Args = "/bin/sh", append([]string{"sh", "-c", `umask 077; exec "$@"`, "sh"}, running.Args...)
	var log bytes.Buffer
	running.Stderr = &log
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	platform.work <- platform.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, platform.report(), wire.Done, "")
	proc.expect("fixed at level 1")
	if out, status := agent.run(nil, "is-covered", cve); status != 0 {
		t.Errorf("is-covered: exit %d, %q", status, out)
	}
	for name, want := range map[string]os.FileMode{"": 0o755, localfiles.CVEList: 0o644, localfiles.State: 0o644} {
		if info, err := os.Stat(filepath.Join(strings.TrimPrefix(agent.args[2], "--run="), name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("not everybody can read %q: %v, %v", name, info.Mode(), err)
		}
	}
	if out, status := agent.run(nil, "status"); status != 0 || !strings.Contains(out, `"processes_patched":1`) {
		t.Errorf("status: exit %d, %q", status, out)
	}
	if out, status := agent.run(nil, "run"); status != 1 || !strings.Contains(out, "only one may run") {
		t.Errorf("a second agent: exit %d, %q", status, out)
	}
	if err := running.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := running.Wait(); err != nil {
		t.Errorf("the agent ended with %v:\n%s", err, &log)
	}
	for _, want := range []string{"started", "connected", "ended: done", "live patches stay in force"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
	proc.expect("fixed at level 1")
}
