package packaging

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func params(url string, content []byte) Params {
	sum := sha256.Sum256(content)
	return Params{URL: url, Version: "1.2.3", SHA256: map[string]string{"amd64": hex.EncodeToString(sum[:]), "arm64": strings.Repeat("0", 64)}}
}

func TestInstallScriptIsClean(t *testing.T) {
	text, err := InstallScript(params("https://livemend.example:8443/p", nil))
	if err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexByte(text, '@'); i >= 0 {
		t.Errorf("something was not filled in: %.40s", text[i:])
	}
	path := filepath.Join(t.TempDir(), "install.sh")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", path).CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v %s", err, out)
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed; make test installs it")
	}
	if out, err := exec.CommandContext(t.Context(), "shellcheck", "-s", "sh", path, "build-deb.sh").CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

func TestInstallScriptRefusesWhatAShellWouldRun(t *testing.T) {
	good := params("http://127.0.0.1:80", nil)
	for name, change := range map[string]func(*Params){
		"url with command":     func(p *Params) { p.URL = "http://a/$(id)" },
		"url with quote":       func(p *Params) { p.URL = "http://a/'b" },
		"url with newline":     func(p *Params) { p.URL = "http://a\nid" },
		"url ending in slash":  func(p *Params) { p.URL = "http://a/" },
		"other scheme":         func(p *Params) { p.URL = "file:///a" },
		"version with space":   func(p *Params) { p.Version = "1 2" },
		"no version":           func(p *Params) { p.Version = "" },
		"no package":           func(p *Params) { p.SHA256 = nil },
		"hash of wrong length": func(p *Params) { p.SHA256 = map[string]string{"amd64": "00"} },
		"architecture":         func(p *Params) { p.SHA256 = map[string]string{"a)b": good.SHA256["amd64"]} },
	} {
		p := good
		change(&p)
		if _, err := InstallScript(p); !errors.Is(err, ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// machine is a folder of programs in place of the machine's: what the script
// would do to a real one is written to a log.
type machine struct {
	t        *testing.T
	bin, log string
}

func newMachine(t *testing.T) machine {
	m := machine{t: t, bin: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	m.program("id", "echo 0")
	m.program("dpkg", `if [ "$1" = --print-architecture ]; then echo amd64; else cat "$2" >/dev/null && echo "dpkg $1 ${2##*/}" >>"$LOG"; fi`)
	m.program("livemend-agent", `echo "agent $* key=${LIVEMEND_KEY:-} token=${LIVEMEND_TOKEN:-} customer=${LIVEMEND_CUSTOMER:-} file=${LIVEMEND_KEY_FILE:-} trust=$LIVEMEND_TRUST" >>"$LOG"; [ -z "${FAIL:-}" ]`)
	m.program("setsid", `exec "$@"`)
	return m
}

func (m machine) program(name, body string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// run runs script as curl would hand it over, with the paths of the machine
// replaced by a folder of the test.
func (m machine) run(script []byte, env ...string) (output, log string, err error) {
	root := m.t.TempDir()
	for _, dir := range []string{"/var/log", "/run"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
		script = bytes.ReplaceAll(script, []byte("="+dir+"/"), []byte("="+root+dir+"/"))
	}
	script = bytes.ReplaceAll(script, []byte("-d /run/systemd/system"), []byte("-d "+root+"/none"))
	cmd := exec.CommandContext(m.t.Context(), "setsid", "sh")
	cmd.Stdin = bytes.NewReader(script)
	cmd.Env = append([]string{"PATH=" + m.bin + ":" + os.Getenv("PATH"), "LOG=" + m.log, "TMPDIR=" + root}, env...)
	out, err := cmd.CombinedOutput()
	text, readErr := os.ReadFile(m.log)
	if readErr != nil && !errors.Is(readErr, os.ErrNotExist) {
		m.t.Fatal(readErr)
	}
	if left, _ := filepath.Glob(root + "/tmp.*"); len(left) > 0 {
		m.t.Errorf("the script left %v", left)
	}
	return string(out), string(text), err
}

func serve(t *testing.T, content []byte) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/install/livemend-agent_1.2.3_amd64.deb" {
			http.NotFound(w, r)
			return
		}
		if _, err := w.Write(content); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestInstallScriptRuns(t *testing.T) {
	content := []byte("a package")
	url := serve(t, content)
	text, err := InstallScript(params(url, content))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		want string // in the log of the agent's enrolment, or, with fail, in the output
		fail bool
	}{
		"key":       {env: []string{"LIVEMEND_TRUST=lmd1-0", "LIVEMEND_KEY=k"}, want: "agent enrol --server " + url + " key=k token= customer= file= trust=lmd1-0"},
		"key file":  {env: []string{"LIVEMEND_TRUST=t", "LIVEMEND_KEY_FILE=/f"}, want: "file=/f trust=t"},
		"token":     {env: []string{"LIVEMEND_TRUST=t", "LIVEMEND_TOKEN=o", "LIVEMEND_CUSTOMER=C-1"}, want: "token=o customer=C-1"},
		"customer":  {env: []string{"LIVEMEND_TRUST=t", "LIVEMEND_CUSTOMER=C-1"}, want: "key= token= customer=C-1"},
		"no trust":  {env: []string{"LIVEMEND_KEY=k"}, want: "LIVEMEND_TRUST is not set", fail: true},
		"nothing":   {env: []string{"LIVEMEND_TRUST=t"}, want: "no registration key", fail: true},
		"not taken": {env: []string{"LIVEMEND_TRUST=t", "LIVEMEND_KEY=k", "FAIL=1"}, want: "not enrolled", fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			out, log, err := newMachine(t).run(text, c.env...)
			if c.fail {
				if err == nil || !strings.Contains(out, c.want) || strings.Contains(log, "agent run") {
					t.Errorf("%v\n%s\n%s", err, out, log)
				}
				return
			}
			if err != nil || !strings.Contains(log, c.want) || !strings.HasPrefix(log, "dpkg -i livemend-agent_1.2.3_amd64.deb\n") {
				t.Errorf("%v\n%s\n%s", err, out, log)
			}
			if strings.Contains(out, "LIVEMEND_KEY") || !strings.Contains(out, "started directly") {
				t.Errorf("output: %s", out)
			}
		})
	}
}

// TestInstallScriptBelievesNobody changes one byte of the package, and ends the
// script early everywhere.
func TestInstallScriptBelievesNobody(t *testing.T) {
	content := []byte("a package")
	text, err := InstallScript(params(serve(t, []byte("b package")), content))
	if err != nil {
		t.Fatal(err)
	}
	out, log, err := newMachine(t).run(text, "LIVEMEND_TRUST=t", "LIVEMEND_KEY=k")
	if err == nil || log != "" || !strings.Contains(out, "SHA-256 differs") {
		t.Errorf("another package: %v\n%s\n%s", err, out, log)
	}
	last := bytes.LastIndex(text, []byte("livemend_install"))
	for cut := 0; cut < last; cut += 97 {
		if _, log, _ := newMachine(t).run(text[:cut], "LIVEMEND_TRUST=t", "LIVEMEND_KEY=k"); log != "" {
			t.Errorf("a script cut at %d does something: %s", cut, log)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Find(dir); !errors.Is(err, ErrNoPackage) {
		t.Errorf("empty folder: %v", err)
	}
	for _, name := range []string{FileName("1.9.0", "amd64"), FileName("1.10.0", "amd64"), FileName("1.10.0", "arm64"), "other_2.0_amd64.deb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	version, sums, err := Find(dir)
	if err != nil || version != "1.10.0" || len(sums) != 2 {
		t.Fatalf("%q %v %v", version, sums, err)
	}
	want := sha256.Sum256([]byte(FileName("1.10.0", "arm64")))
	if sums["arm64"] != hex.EncodeToString(want[:]) {
		t.Error("hash of another file")
	}
	if _, err := InstallScript(Params{URL: "http://[::1]:8080", Version: version, SHA256: sums}); err != nil {
		t.Error(err)
	}
}
