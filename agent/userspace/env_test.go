package userspace

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitFor polls until the condition holds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		runtime.Gosched()
	}
}

// peek reads the program's memory.
func peek(t *testing.T, h *host, at uint64, n int) []byte {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", h.pid()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	return b
}

// poke writes the program's memory.
func poke(t *testing.T, h *host, at uint64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", h.pid()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// libraryBias returns where the program has the library.
func libraryBias(t testing.TB, h *host) uint64 {
	t.Helper()
	return targetOf(t, h.pid()).bias
}

// targetOf locates the library in a process.
func targetOf(t testing.TB, pid int) *target {
	t.Helper()
	l, err := look(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pin(Process{PID: pid, Start: l.start})
	l.close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	tg, err := testEngine().locate(p, buildID(t, libPath), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

// countStates counts the images in the program.
func countStates(h *host) int {
	cs, err := targetOf(h.t, h.pid()).carriers(buildID(h.t, libPath))
	if err != nil {
		h.t.Fatal(err)
	}
	return len(cs)
}

// A filter that kills on mmap is suspended for our calls and works afterwards.
func TestSeccompFilter(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("filter", "ok")
	h.do(e.Apply, p, Patched)
	h.want("f1 1", "101")
	// The filter is still there: a new thread needs a stack by mmap.
	if _, err := io.WriteString(h.in, "sleep 1\n"); err != nil {
		t.Fatal(err)
	}
	err := h.cmd.Wait()
	if ee, ok := err.(*exec.ExitError); !ok || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
		t.Errorf("the program ended with %v, want it killed by its filter", err)
	}
}

func TestMDWE(t *testing.T) {
	h := startHost(t)
	if got := h.ask("mdwe"); got != "ok" {
		t.Skipf("this kernel has no PR_SET_MDWE: %s", got)
	}
	p := makePatch(t, libPath, 1, all(100))
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
}

func TestNotDumpable(t *testing.T) {
	h := startHost(t)
	h.want("undump", "ok")
	p := makePatch(t, libPath, 1, all(100))
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
}

// copyTree puts program, library and what they need into a folder.
func copyTree(t *testing.T, dir string) {
	t.Helper()
	files := map[string]string{"/host": hostPath, "/libtarget.so": libPath}
	for _, f := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"} {
		files[f] = f
	}
	for to, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// The file is gone, as after an upgrade of its package.
func TestDeletedLibrary(t *testing.T) {
	dir := t.TempDir()
	copyTree(t, dir)
	h := startProgram(t, exec.Command(filepath.Join(dir, "host")))
	if err := os.Remove(filepath.Join(dir, "libtarget.so")); err != nil {
		t.Fatal(err)
	}
	p := makePatch(t, libPath, 1, all(100))
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
}

// The program lives in another root, with other mounts, users and process
// numbers than the engine.
func TestOtherRootAndNamespaces(t *testing.T) {
	dir := t.TempDir()
	copyTree(t, dir)
	for _, test := range []struct {
		name string
		attr syscall.SysProcAttr
	}{
		{"chroot", syscall.SysProcAttr{Chroot: dir}},
		{"mount namespace", syscall.SysProcAttr{Chroot: dir, Cloneflags: syscall.CLONE_NEWNS}},
		{"pid and user namespace", syscall.SysProcAttr{Chroot: dir,
			Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/host")
			cmd.SysProcAttr, cmd.Dir = &test.attr, "/"
			cmd.Env = []string{"LD_LIBRARY_PATH=/"}
			h := startProgram(t, cmd)
			p := makePatch(t, libPath, 1, all(100))
			e := testEngine()
			h.do(e.Apply, p, Patched)
			h.want("f1 1", "101")
			h.do(e.Revert, p, Reverted)
			h.want("f1 1", "2")
		})
	}
}

// Another library, with the same functions under the same name, is not touched.
func TestWrongBuildID(t *testing.T) {
	h := startHost(t)
	other := filepath.Join(t.TempDir(), "libtarget.so")
	if err := compile(other, "testdata/lib.c", "testdata/landing.c", "-shared", "-fPIC", "-Wl,-soname,other"); err != nil {
		t.Fatal(err)
	}
	p := makePatch(t, other, 1, all(100))
	results, err := testEngine().Apply(context.Background(), p)
	if err != nil || len(results) != 0 {
		t.Errorf("results %+v, error %v; want none", results, err)
	}
	h.want("f1 1", "2")
}

// Code that is not what the patch was built for is refused, wherever in the
// function it differs, and no function is changed.
func TestOldBytesDiffer(t *testing.T) {
	for _, off := range []uint64{0, 6} {
		t.Run(strconv.Itoa(int(off)), func(t *testing.T) {
			h := startHost(t)
			p := makePatch(t, libPath, 1, all(100))
			before := len(h.maps())
			at := libraryBias(t, h) + p.File.Hunks[7].Off + off
			poke(t, h, at, []byte{0x90})
			r := h.do(testEngine().Apply, p, Failed)
			if !strings.Contains(r.Reason, p.File.Hunks[7].Name) {
				t.Errorf("reason %q, want the function named", r.Reason)
			}
			h.want("f1 1", "2")
			if n := len(h.maps()); n != before {
				t.Errorf("%d mappings, %d before", n, before)
			}
		})
	}
	t.Run("hash", func(t *testing.T) {
		h := startHost(t)
		p := makePatch(t, libPath, 1, all(100))
		p.File.Hunks[3].OldHash = sha256.Sum256([]byte("another function"))
		h.do(testEngine().Apply, p, Failed)
		h.want("f1 1", "2")
	})
}

// Undo leaves alone what is not ours any more.
func TestRevertWithForeignJump(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.do(e.Apply, p, Patched)
	at := libraryBias(t, h) + p.File.Hunks[2].Off
	poke(t, h, at, []byte{0xcc})
	h.do(e.Revert, p, Failed)
	h.want("f1 1", "101")
	if got := peek(t, h, at, 1); got[0] != 0xcc {
		t.Errorf("the foreign byte became %x", got)
	}
}

// traceEnv tells the test program, started as a helper, which process to trace.
const traceEnv = "USERSPACE_TEST_TRACE"

// traceAndWait traces a process until standard input ends.
func traceAndWait(pid string) int {
	runtime.LockOSThread()
	n, err := strconv.Atoi(pid)
	if err != nil || ptraceValue(unix.PTRACE_SEIZE, n, 0) != 0 {
		return 1
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 1
	}
	return 0
}

func TestAlreadyTraced(t *testing.T) {
	h := startHost(t)
	p := makePatch(t, libPath, 1, all(100))
	debugger := exec.Command(os.Args[0])
	debugger.Env = append(os.Environ(), traceEnv+"="+strconv.Itoa(h.pid()))
	d := startProgram(t, debugger)
	r := h.do(testEngine().Apply, p, Skipped)
	if !strings.Contains(r.Reason, "trace") {
		t.Errorf("reason %q, want that it is traced", r.Reason)
	}
	h.want("f1 1", "2")
	d.end()
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
}

func TestSelfIsSkipped(t *testing.T) {
	j := job{engine: testEngine(), patch: makePatch(t, libPath, 1, all(1)), proc: Process{PID: os.Getpid()}}
	if r := j.run(context.Background(), doApply); r.Outcome != Skipped {
		t.Errorf("%+v, want skipped", r)
	}
}

// The program's first thread has ended; the others go on.
func TestFirstThreadEnded(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("call 2", "ok")
	h.want("mainexit", "ok")
	waitFor(t, "the first thread's end", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", h.pid(), h.pid()))
		return err == nil && strings.Contains(string(text), ") Z ")
	})
	results, err := e.Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel shows the mappings of such a process by its first thread only.
	for _, r := range results {
		if r.PID == h.pid() && r.Outcome != Patched {
			t.Errorf("%+v", r)
		}
	}
}

// Processes that end or start another program at any moment leave no error
// behind that is not theirs.
func TestProcessEndsMeanwhile(t *testing.T) {
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	for i := range 20 {
		h := startHost(t)
		h.want("call 2", "ok")
		l, err := look(h.pid())
		if err != nil {
			t.Fatal(err)
		}
		l.close()
		proc := Process{PID: h.pid(), Start: l.start}
		done := make(chan Result)
		go func() {
			j := job{engine: e, patch: p, proc: proc}
			done <- j.run(context.Background(), doApply)
		}()
		for range i * 40 {
			runtime.Gosched()
		}
		if i%2 == 0 {
			if err := h.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		} else if _, err := io.WriteString(h.in, "exec\n"); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.Outcome != Patched && r.Outcome != Ended {
			t.Errorf("round %d: %+v, want patched or ended", i, r)
		}
		h.end()
	}
}

// Between vfork and exec two processes have one memory.
func TestSharedMemory(t *testing.T) {
	h := startHost(t)
	e := New(Options{Children: true, Watch: -1, StopWait: 20 * time.Millisecond, Patience: 50 * time.Millisecond})
	p := makePatch(t, libPath, 1, all(100))
	h.want("vfork 1", "ok")
	var results []Result
	waitFor(t, "the child", func() bool {
		var err error
		if results, err = e.Status(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		return len(results) == 2
	})
	results, err := e.Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Outcome != Failed || !strings.Contains(r.Reason, "shares its memory") {
			t.Errorf("%+v, want it refused as shared", r)
		}
	}
	h.want("f1 1", "2")
	h.want("release", "ok")
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
}
