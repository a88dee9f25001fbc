package kernel_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/patch"
)

// kernels are what everything is tested on.
var kernels = []guest.Kernel{guest.Debian61, guest.Debian612}

// The testagent's request and reply; see there.
type (
	request struct {
		Do        string
		Module    string
		Target    patch.Target
		Options   kernel.Options
		State     string
		Probation time.Duration
		Patience  time.Duration
		Number    int
	}
	reply struct {
		Result      kernel.Result
		Identity    kernel.Identity
		Loaded      []kernel.Loaded
		Quarantined []struct{ SHA256, Reason string }
		Intent      struct {
			Module  string
			Phase   string
			Strikes int64
		}
		Times []struct{ Bare, Engine, Kept time.Duration }
		Kinds []string
		Error string
		Tasks []kernel.Task
	}
)

const agentPath = "/bin/livemend-testagent"

// agentProgram builds the testagent, once.
var agentProgram = sync.OnceValues(func() ([]byte, error) {
	return guest.Program(contextOfAll, "livemend.dev/livemend/agent/kernel/testagent")
})

// server is a guest with an agent.
type server struct {
	*guest.Machine
	t      testing.TB
	target patch.Target
	// State of the agent: below /disk when the guest has one.
	state string
}

// boot starts a server.
func boot(t testing.TB, c guest.Config) *server {
	t.Helper()
	b, err := agentProgram()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "testagent")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	c.Files = map[string]string{agentPath: path}
	s := &server{Machine: guest.Boot(t, c), t: t, state: "/run/state"}
	if c.Disk != "" {
		s.state = "/disk/state"
	}
	id := s.do(request{Do: "identity"}).Identity
	s.target = patch.Target{BuildID: id.BuildID, Arch: id.Arch, Release: id.Release}
	return s
}

// command returns the call of the agent for a request.
func (s *server) command(r request) guest.Command {
	s.t.Helper()
	if r.Target == (patch.Target{}) {
		r.Target = s.target
	}
	if r.Options.RunDir == "" {
		r.Options.RunDir = "/run"
	}
	if r.State == "" {
		r.State = s.state
	}
	b, err := json.Marshal(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return guest.Command{Args: []string{agentPath}, Stdin: b, Timeout: 3 * time.Minute}
}

// do has the agent do something.
func (s *server) do(r request) reply {
	s.t.Helper()
	return s.read(s.Run(s.command(r)))
}

func (s *server) read(result guest.Result) (answer reply) {
	s.t.Helper()
	if result.Exit != 0 {
		s.t.Fatalf("the agent ended with %d (%d): %s", result.Exit, result.Signal, result.Stderr)
	}
	if err := json.Unmarshal(result.Stdout, &answer); err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// want does something and compares outcome or kind of error.
func (s *server) want(r request, want string) reply {
	s.t.Helper()
	answer := s.do(r)
	if got := answer.was(); got != want {
		s.t.Errorf("%s %s: %q, want %q: %s", r.Do, filepath.Base(r.Module), got, want, answer.Error)
	}
	return answer
}

// was is the outcome, or the kinds of the error.
func (r *reply) was() string {
	switch {
	case len(r.Kinds) > 0:
		return strings.Join(r.Kinds, ", ")
	case r.Error != "":
		return "an error without a kind"
	}
	return string(r.Result.Outcome)
}

func (s *server) apply(module, want string) reply {
	s.t.Helper()
	return s.want(request{Do: "apply", Module: module}, want)
}

func (s *server) revert(module, want string) reply {
	s.t.Helper()
	return s.want(request{Do: "revert", Module: module}, want)
}

// shows compares the file that the test patches change.
func (s *server) shows(want string) {
	s.t.Helper()
	got := s.Text("/proc/cmdline")
	if want == "" {
		if !strings.HasPrefix(got, "console=") {
			s.t.Errorf("/proc/cmdline shows %q, want the original", got)
		}
	} else if got != want {
		s.t.Errorf("/proc/cmdline shows %q, want %q", got, want)
	}
}

// modules returns the loaded modules of these tests.
func (s *server) modules() []string {
	s.t.Helper()
	var names []string
	for line := range strings.Lines(s.Text("/proc/modules")) {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, "livemend_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *server) onlyModules(want ...string) {
	s.t.Helper()
	if got := s.modules(); !slices.Equal(got, want) {
		s.t.Errorf("modules %q are loaded, want %q", got, want)
	}
}

// build compiles a module from a file of testdata with definitions before it.
func build(t testing.TB, k guest.Kernel, name, file string, defines ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, d := range defines {
		source.WriteString("#define " + d + "\n")
	}
	source.Write(text)
	b, err := os.ReadFile(guest.Module(t, k, name, source.String()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// give puts a module into the guest and returns its path there.
func (s *server) give(name string, b []byte) string {
	s.t.Helper()
	path := "/tmp/" + name + ".ko"
	s.Put(path, b)
	return path
}

// changed returns b with one text in it replaced by another of that length.
func changed(t testing.TB, b []byte, from, to string) []byte {
	t.Helper()
	if len(from) != len(to) || bytes.Count(b, []byte(from)) != 1 {
		t.Fatalf("%q is %d times in the module, or %q has another length", from, bytes.Count(b, []byte(from)), to)
	}
	return bytes.Replace(b, []byte(from), []byte(to), 1)
}
