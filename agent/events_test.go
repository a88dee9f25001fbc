package agent_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// soon is how fast a process must be patched after it mapped the library.
const soon = time.Second

// The program loads the library when it is told to, and forks and execs.
const loaderSource = `
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/prctl.h>
int main(int argc, char **argv) {
	char line[4096];
	const char *(*answer)(int) = 0;
	void *lib = 0;
	setvbuf(stdout, NULL, _IONBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == '?') puts(answer ? answer(line[0]) : "not loaded");
		else if (line[0] == '!') puts(answer ? answer('!') : "not loaded");
		else if (!strncmp(line, "load ", 5)) {
			lib = dlopen(line + 5, RTLD_NOW);
			if (lib) answer = (const char *(*)(int))dlsym(lib, "answer");
			puts(answer ? "loaded" : dlerror());
		} else if (!strncmp(line, "exec ", 5)) {
			execl(line + 5, line + 5, (char *)0);
			puts("exec failed");
		} else if (!strcmp(line, "fork")) {
			pid_t pid = fork();
			if (pid == 0) { prctl(PR_SET_PDEATHSIG, 9); puts(answer ? answer('?') : "not loaded"); _exit(0); }
		} else if (!strcmp(line, "abort")) abort();
		else if (!strcmp(line, "die")) *(volatile int *)8 = 1;
		else puts("unknown");
	}
	return 0;
}
`

var loader struct {
	once sync.Once
	path string
}

func startLoader(t *testing.T) *process {
	t.Helper()
	loader.once.Do(func() {
		if err := os.WriteFile(filepath.Join(built.dir, "loader.c"), []byte(loaderSource), 0o600); err != nil {
			t.Fatal(err)
		}
		authortest.Run(t, built.dir, "gcc", "-O1", "-o", "loader", "loader.c", "-ldl")
		loader.path = filepath.Join(built.dir, "loader")
	})
	return startProgram(t, loader.path)
}

func startProgram(t *testing.T, path string) *process {
	t.Helper()
	cmd := exec.Command(path)
	in := must2(cmd.StdinPipe())(t)
	out := must2(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // it may have ended of what the test did to it
		_ = cmd.Wait()
	})
	p := &process{t, cmd.Process.Pid, in, bufio.NewReader(out)}
	if got := p.line(); got != "ready" {
		t.Fatalf("the program says %q", got)
	}
	return p
}

func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (p *process) say(text string) {
	p.t.Helper()
	if _, err := p.in.Write([]byte(text + "\n")); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) tell(text, want string) {
	p.t.Helper()
	p.say(text)
	if got := p.line(); got != want {
		p.t.Fatalf("%s: the program says %q, want %q", text, got, want)
	}
}

// becomes waits until the library answers as it should and checks how long it took.
func (p *process) becomes(want string, since time.Time) {
	p.t.Helper()
	eventually(p.t, "process "+strconv.Itoa(p.pid)+" answers "+want, func() bool { return p.answer() == want })
	took := time.Since(since)
	p.t.Logf("process %d was patched within %v", p.pid, took)
	if took > soon {
		p.t.Errorf("process %d was patched after %v, want at most %v", p.pid, took, soon)
	}
}

// hasEvents skips the test where the kernel tells nothing of processes.
func hasEvents(t *testing.T, a *agent) {
	t.Helper()
	if text := a.missing("processes that start"); text != "" {
		t.Skip("no events here: " + text)
	}
}

func libraryPath() string { return filepath.Join(built.dir, "libanswer.so") }

func TestEventsFindProcesses(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	first := s.start()
	a := newAgent(t, p)
	a.events = true // and no round in an hour
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	first.expect("fixed at level 1")
	hasEvents(t, a)

	began := time.Now()
	s.start().becomes("fixed at level 1", began)

	late := startLoader(t)      // maps nothing of interest yet
	time.Sleep(2 * time.Second) // the looks that its start led to are over
	began = time.Now()
	late.tell("load "+libraryPath(), "loaded")
	late.becomes("fixed at level 1", began)

	// A child has what its parent has, and nothing is done to it.
	late.tell("fork", "fixed at level 1")

	began = time.Now()
	late.say("exec " + s.program)
	if got := late.line(); got != "ready" {
		t.Fatalf("after exec: %q", got)
	}
	late.becomes("fixed at level 1", began)

	a.restart()
	first.expect("fixed at level 1")
	late.expect("fixed at level 1")
	began = time.Now()
	s.start().becomes("fixed at level 1", began)
}

// badSample is a library of its own with two levels of patches: the new code of
// the first dies when the library is asked '!', and does well otherwise.
func badSample(t *testing.T) (s *sample, library string) {
	t.Helper()
	files := func(answer string) authortest.Files {
		return authortest.Files{"answer.c": strings.Replace(strings.Replace(source, "%s", "leaks", 1), "return length(n) > 0 ? words[0]", answer, 1)}
	}
	stock := files("return length(n) > 0 ? words[0]")
	before := authortest.Objects(t, stock, authortest.Sections()...)
	binary, twin := authortest.Library(t, stock)
	s = &sample{t: t}
	for i, answer := range []string{`if (n == '!') *(volatile int *)0 = 1; return length(n) > 0 ? "fixed, but"`, `return length(n) > 0 ? "fixed at level 2"`} {
		s.levels[i] = must2(author.Build(t.Context(), author.Request{
			Before: before, After: authortest.Objects(t, files(answer), authortest.Sections()...), Binary: binary, Twin: twin,
			ID: "U-bad-" + strconv.Itoa(i+1), Level: int64(i + 1), Builder: "test", Fixes: []patch.Fix{{CVE: cve}},
		}))(t)
	}
	return s, binary
}

// Two processes run a patch; one of them dies in its code when that is called
// later. The other one gets the old code back, and the patch never returns.
func TestPatchThatKillsLater(t *testing.T) {
	p := newPlatform(t)
	s, library := badSample(t)
	p.publishSample(s, 1, 2)
	one, two := startLoader(t), startLoader(t)
	one.tell("load "+library, "loaded")
	two.tell("load "+library, "loaded")
	a := newAgent(t, p)
	a.events = true
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	one.expect("fixed, but")
	if text := a.missing("a process that dies"); text != "" {
		t.Skip("the kernel's log does not say where a process died: " + text)
	}
	hasEvents(t, a)

	one.say("!")
	eventually(t, "the other process has the old code", func() bool { return two.answer() == "leaks" })
	var barred []wire.Quarantined
	eventually(t, "the files say so", func() bool {
		barred = a.store.Quarantines()
		b, err := os.ReadFile(filepath.Join(a.run, localfiles.State))
		return err == nil && bytes.Contains(b, []byte("died in the patch's code")) && !a.covered()
	})
	if len(barred) != 1 || barred[0].Level != 1 || !strings.Contains(barred[0].Reason, strconv.Itoa(one.pid)) {
		t.Errorf("quarantine: %+v", barred)
	}

	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	r := p.report()
	wantOutcome(t, r, wire.Refused, "quarantine")
	if !strings.Contains(r.Text, "died in the patch's code") {
		t.Errorf("the report says %q", r.Text)
	}
	eventually(t, "the report is acknowledged", func() bool {
		_, err := a.store.NextResult()
		return errors.Is(err, state.ErrAbsent)
	})
	a.restart()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Refused, "quarantine")
	two.expect("leaks")
	eventually(t, "the inventory lists it", func() bool {
		return len(next(t, p.snapshots, "an inventory").Quarantined) == 1
	})
	p.work <- p.patchOrder(s, 2, trust.Apply, nil) // another artifact
	wantOutcome(t, p.report(), wire.Done, "")
	two.expect("fixed at level 2")
}

// A patch that kills whoever calls its function: the first process dies under
// watch, and no other one gets it.
func TestPatchThatKillsTheCanary(t *testing.T) {
	p := newPlatform(t)
	s, library := badSample(t)
	p.publishSample(s, 1)
	var procs []*process
	for range 2 {
		proc := startLoader(t)
		proc.tell("load "+library, "loaded")
		procs = append(procs, proc)
	}
	a := newAgent(t, p)
	a.events = true
	a.watch = 20 * time.Second
	a.enrol()
	a.start()
	var caller sync.WaitGroup
	caller.Go(func() { // the youngest is patched first
		for {
			if _, err := io.WriteString(procs[1].in, "!\n"); err != nil {
				return
			}
			if _, err := procs[1].out.ReadString('\n'); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	defer caller.Wait()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	if text := a.missing("a process that dies"); text != "" {
		t.Skip("the kernel's log does not say where a process died: " + text)
	}
	r := p.report()
	wantOutcome(t, r, wire.Failed, "quarantine")
	if len(r.Processes) != 2 || len(r.Applied) != 0 {
		t.Errorf("report: %+v", r)
	}
	for _, one := range r.Processes {
		if one.PID == int64(procs[0].pid) && (one.Outcome != wire.Refused || !strings.Contains(one.Reason, "not tried")) {
			t.Errorf("the process that was spared: %+v", one)
		}
	}
	procs[0].expect("leaks")
}

// A process that dies of something else, or is killed, does not speak against
// the patch; two that die for no reason that is known do.
func TestDeathsOfOtherCauses(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	procs := make([]*process, 5)
	for i := range procs {
		procs[i] = startLoader(t)
		procs[i].tell("load "+libraryPath(), "loaded")
	}
	a := newAgent(t, p)
	a.events = true
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	hasEvents(t, a)
	gone := func(proc *process) {
		t.Helper()
		if _, err := proc.out.ReadString('\n'); err == nil {
			t.Fatal("the process lives")
		}
		time.Sleep(500 * time.Millisecond) // longer than a verdict takes
	}
	if err := unix.Kill(procs[0].pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(procs[0])
	if err := unix.Kill(procs[1].pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	gone(procs[1])
	procs[2].say("die") // elsewhere: one suspicion
	gone(procs[2])
	if q := a.store.Quarantines(); len(q) != 0 {
		t.Fatalf("quarantine: %+v", q)
	}
	procs[4].expect("fixed at level 1")
	procs[3].say("abort") // the second one
	eventually(t, "the last process has the old code", func() bool { return procs[4].answer() == "leaks" })
	if q := a.store.Quarantines(); len(q) != 1 || !strings.Contains(q[0].Reason, "SIGSEGV") || !strings.Contains(q[0].Reason, "SIGABRT") {
		t.Errorf("quarantine: %+v", q)
	}
}
