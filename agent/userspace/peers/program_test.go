package peers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "embed"

	"livemend.dev/livemend/agent/userspace"
)

//go:embed testdata/program.c
var programText string

var _ = program.add("main", programText)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// engine returns one that patches children of the test and does not watch them.
func engine(wait time.Duration) *userspace.Engine {
	return userspace.New(userspace.Options{Children: true, Watch: -1, StopWait: time.Second, Patience: wait, Answer: patience})
}

// process is one running program.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	told  *strings.Builder // standard error; read it after the end
}

// start runs the program with the library.
func start(t testing.TB) *process {
	t.Helper()
	return startWith(t, library)
}

// startWith runs the program with the libraries preloaded.
func startWith(t testing.TB, libraries ...*binary) *process {
	t.Helper()
	program.build(t)
	cmd := exec.Command(program.path)
	cmd.Env = append(os.Environ(), preload(t, libraries...))
	return launch(t, cmd)
}

// preload is the setting that makes a program load the libraries.
func preload(t testing.TB, libraries ...*binary) string {
	var paths []string
	for _, b := range libraries {
		b.build(t)
		paths = append(paths, b.path)
	}
	return "LD_PRELOAD=" + strings.Join(paths, " ")
}

// launch starts a program that says when it is ready; it ends with the test.
func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, lines: make(chan string, 64), told: new(strings.Builder)}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = p.told
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(p.end)
	if got := p.line(); got != "ready" {
		t.Fatalf("the program said %q, not that it is ready", got)
	}
	return p
}

// end kills the program and waits for it.
func (p *process) end() {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
		p.t.Error(err)
	}
	for range p.lines { // until its standard output is closed
	}
	if err := p.cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
		p.t.Errorf("the program ended by itself: %v\n%s", err, p.told)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) line() string {
	p.t.Helper()
	select {
	case s, ok := <-p.lines:
		if !ok {
			p.t.Fatal("the program ended")
		}
		return s
	case <-time.After(patience):
		p.t.Fatal("the program does not answer")
	}
	return ""
}

func (p *process) say(command string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// ask sends one command and returns the answer.
func (p *process) ask(command string) string {
	p.t.Helper()
	p.say(command)
	return p.line()
}

// number sends one command and returns the answer, which is a number.
func (p *process) number(command string) int {
	p.t.Helper()
	n, err := strconv.Atoi(p.ask(command))
	if err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
	return n
}

// want sends one command and checks the answer.
func (p *process) want(command, answer string) {
	p.t.Helper()
	if got := p.ask(command); got != answer {
		p.t.Errorf("%s: answer %q, want %q", command, got, answer)
	}
}

// reaches asks until the answer is at least n.
func (p *process) reaches(command string, n int) {
	p.t.Helper()
	for end := time.Now().Add(patience); p.number(command) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%s never reached %d", command, n)
		}
	}
}

type operation func(context.Context, userspace.Patch) ([]userspace.Result, error)

// all runs one operation and returns the results by process.
func all(t testing.TB, op operation, p userspace.Patch) map[int]userspace.Result {
	t.Helper()
	results, err := op(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[int]userspace.Result)
	for _, r := range results {
		by[r.PID] = r
	}
	return by
}

// does runs one operation and checks the outcome for the program.
func (p *process) does(op operation, patch userspace.Patch, want userspace.Outcome) userspace.Result {
	p.t.Helper()
	r, ok := all(p.t, op, patch)[p.pid()]
	if !ok {
		p.t.Fatal("there is no result for the program")
	}
	if r.Outcome != want {
		p.t.Fatalf("outcome %q (%s), want %q", r.Outcome, r.Reason, want)
	}
	return r
}

// apply and revert must succeed.
func (p *process) apply(patch userspace.Patch) userspace.Result {
	p.t.Helper()
	return p.does(engine(patience).Apply, patch, userspace.Patched)
}

func (p *process) revert(patch userspace.Patch) userspace.Result {
	p.t.Helper()
	return p.does(engine(patience).Revert, patch, userspace.Reverted)
}

// busy tries one operation for a short time; the program must be busy.
func (p *process) busy(op func(*userspace.Engine) operation, patch userspace.Patch) {
	p.t.Helper()
	r := p.does(op(engine(100*time.Millisecond)), patch, userspace.Failed)
	if !strings.HasPrefix(r.Reason, "busy: ") {
		p.t.Errorf("reason %q, want that it is busy", r.Reason)
	}
}

func applying(e *userspace.Engine) operation  { return e.Apply }
func reverting(e *userspace.Engine) operation { return e.Revert }

// maps returns the lines of the kernel's list of the program's mappings.
func (p *process) maps() []string {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// waitMapped waits until an image is in the program that was not there before.
func (p *process) waitMapped() {
	p.t.Helper()
	before := len(p.maps())
	for end := time.Now().Add(patience); len(p.maps()) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatal("no image appears")
		}
	}
}
