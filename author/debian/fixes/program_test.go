package fixes_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author"
	"livemend.dev/livemend/patch/image"
)

// interpreter is the distribution's; another python3 may come first on the path.
const interpreter = "/usr/bin/python3"

// patience bounds how long one program may take for everything.
const patience = 5 * time.Minute

// program is the distribution's Python with a stock library loaded and a probe
// that says what it finds, line by line.
type program struct {
	t       *testing.T
	pid     int
	library string
	in      io.WriteCloser
	out     *bufio.Reader
}

// start runs the fix's probe. A shell stands between it and the test, as the
// engine leaves children of its own process alone.
func (f fix) start(t *testing.T, library string) *program {
	t.Helper()
	if _, err := os.Stat(interpreter); err != nil {
		t.Fatal("the distribution's python3 is not installed: ", err)
	}
	var text strings.Builder
	for _, name := range slices.Concat([]string{"harness.py"}, f.probe, []string{"serve.py"}) {
		part, err := probes.ReadFile(path.Join("probes", name))
		if err != nil {
			t.Fatal(err)
		}
		text.Write(part)
	}
	// The interpreter itself may need the library; it shall not load another copy.
	dir := t.TempDir()
	if err := os.Symlink(library, filepath.Join(dir, sets[f.set].library)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &program{t: t, library: library}
	const shell = `exec 3<&0; "$@" <&3 & echo $!; wait`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", shell, "sh", interpreter, "-c", text.String(), library, t.TempDir())
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LD_LIBRARY_PATH=" + dir}
	if f.env != "" {
		cmd.Env = append(cmd.Env, f.env)
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		// It was killed on purpose.
		_ = cmd.Wait()
		if t.Failed() && problems.Len() > 0 {
			t.Log("the program wrote: ", problems.String())
		}
	})
	if p.pid, err = strconv.Atoi(p.line()); err != nil {
		t.Fatal(err)
	}
	if ready := p.line(); ready != "ready" {
		t.Fatalf("the program says %q", ready)
	}
	return p
}

func (p *program) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the program says no more: %v", err)
	}
	return strings.TrimSpace(line)
}

func (p *program) ask() {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "go\n"); err != nil {
		p.t.Fatal(err)
	}
}

// expect probes once.
func (p *program) expect(want string) {
	p.t.Helper()
	p.ask()
	if got := p.line(); got != want {
		p.t.Fatalf("the probe says %q, want %q", got, want)
	}
}

func live(result *author.Result, file *image.File) userspace.Patch {
	return userspace.Patch{File: file, SHA256: sha256.Sum256(result.Artifact), Level: 1}
}

func (p *program) apply(result *author.Result, file *image.File) {
	p.t.Helper()
	r := p.one(userspace.New(userspace.Options{}).Apply(p.t.Context(), live(result, file)))
	if r.Outcome != userspace.Patched {
		p.t.Fatalf("apply: %s: %s", r.Outcome, r.Reason)
	}
	p.t.Logf("applied to python3: stopped for %s, before that one thread for %s", r.Stop, r.Map)
}

func (p *program) revert(result *author.Result, file *image.File) {
	p.t.Helper()
	if r := p.one(userspace.New(userspace.Options{}).Revert(p.t.Context(), live(result, file))); r.Outcome != userspace.Reverted {
		p.t.Fatalf("revert: %s: %s", r.Outcome, r.Reason)
	}
}

// one returns the program's own result, which must be the only one.
func (p *program) one(results []userspace.Result, err error) userspace.Result {
	p.t.Helper()
	if err != nil || len(results) != 1 || results[0].PID != p.pid {
		p.t.Fatalf("want one result, for process %d: %v, %v", p.pid, results, err)
	}
	return results[0]
}

// reached has the program probe once and waits, as a debugger does, until it
// runs the new code of a function.
func (p *program) reached(file *image.File, name string) {
	p.t.Helper()
	addr := p.newCode(file, name)
	runtime.LockOSThread() // a tracer is one thread
	defer runtime.UnlockOSThread()
	must := func(what string, err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
	}
	stopped := func() (status syscall.WaitStatus) {
		p.t.Helper()
		_, err := syscall.Wait4(p.pid, &status, syscall.WALL, nil)
		must("wait", err)
		if !status.Stopped() {
			p.t.Fatalf("the process ended: %v", status)
		}
		return status
	}
	must("attach", syscall.PtraceAttach(p.pid))
	stopped()
	old := make([]byte, 1)
	_, err := syscall.PtracePeekText(p.pid, uintptr(addr), old)
	must("read code", err)
	_, err = syscall.PtracePokeText(p.pid, uintptr(addr), []byte{0xcc})
	must("set the breakpoint", err)
	p.ask()
	must("go on", syscall.PtraceCont(p.pid, 0))
	if status := stopped(); status.StopSignal() != syscall.SIGTRAP {
		p.t.Fatalf("stopped by %v, not by the breakpoint", status.StopSignal())
	}
	var regs syscall.PtraceRegs
	must("read registers", syscall.PtraceGetRegs(p.pid, &regs))
	if int64(regs.Rip) != addr+1 {
		p.t.Fatalf("stopped at %#x, not at %#x", regs.Rip, addr+1)
	}
	regs.Rip--
	must("set registers", syscall.PtraceSetRegs(p.pid, &regs))
	_, err = syscall.PtracePokeText(p.pid, uintptr(addr), old)
	must("take the breakpoint away", err)
	must("detach", syscall.PtraceDetach(p.pid))
	if got := p.line(); got != "used" {
		p.t.Fatalf("the probe says %q", got)
	}
}

// newCode follows the jump at the entry of a patched function.
func (p *program) newCode(file *image.File, name string) int64 {
	p.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	var bias int64
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) == 6 && fields[2] == "00000000" && fields[5] == p.library {
			if _, err := fmt.Sscanf(fields[0], "%x-", &bias); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	i := slices.IndexFunc(file.Hunks, func(h image.Hunk) bool { return h.Name == name })
	if bias == 0 || i < 0 {
		p.t.Fatalf("%s is not mapped, or %s not patched", p.library, name)
	}
	at := bias + int64(file.Hunks[i].Off) + int64(file.Hunks[i].JumpOff())
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	var jump [5]byte
	_, err = mem.ReadAt(jump[:], at)
	if err := errors.Join(err, mem.Close()); err != nil {
		p.t.Fatal(err)
	}
	if jump[0] != 0xe9 {
		p.t.Fatalf("%s begins with % x, not with a jump", name, jump)
	}
	rel := int32(uint32(jump[1]) | uint32(jump[2])<<8 | uint32(jump[3])<<16 | uint32(jump[4])<<24)
	return at + 5 + int64(rel)
}
