package userspace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// No system call of the program ends with EINTR because it was stopped.
func TestSyscallRestart(t *testing.T) {
	for _, kind := range []string{"poll", "sem"} {
		t.Run(kind, func(t *testing.T) {
			h := startHost(t)
			e := testEngine()
			p := makePatch(t, libPath, 1, all(100))
			h.want(kind+" 4", "ok")
			waitFor(t, "the threads to wait", func() bool { return h.ask("waits") == "4" })
			settle(t, h)
			for range 8 {
				h.do(e.Apply, p, Patched)
				h.do(e.Revert, p, Reverted)
			}
			h.want("eintr", "0")
			h.want("waits", "4")
		})
	}
}

// settle waits until all threads of the program but the first sleep.
func settle(t *testing.T, h *host) {
	t.Helper()
	waitFor(t, "all threads to sleep", func() bool {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", h.pid()))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return false
			}
			if s := string(text); !strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " S") {
				return false
			}
		}
		return true
	})
}

// Signals that arrive in the middle of it all get to their handlers, each one.
func TestSignalsSurvive(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("catch 34", "ok") // a real-time signal queues
	h.want("spin 2", "ok")
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
				if n < 2000 && syscall.Kill(h.pid(), 34) == nil {
					n++
				}
			}
		}
	}()
	for range 8 {
		h.do(e.Apply, p, Patched)
		h.do(e.Revert, p, Reverted)
	}
	close(stop)
	n := <-sent
	waitFor(t, "all signals", func() bool { return h.ask("signals") == strconv.Itoa(n) })
}

// A program that handles SIGTRAP, by which the kernel also announces that a
// thread was stepped, gets every one that somebody sends it and no other.
func TestTrapsSurvive(t *testing.T) {
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	for range 20 { // each process has the image mapped once
		h := startHost(t)
		h.want("catch 5", "ok")
		began, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for n := 1; n <= 60; n++ { // one at a time: they do not queue
				if err := syscall.Kill(h.pid(), syscall.SIGTRAP); err != nil {
					t.Error(err)
				}
				if n == 20 {
					close(began)
				}
				if got := h.ask("signals"); got != strconv.Itoa(n) {
					t.Errorf("%s were handled of %d", got, n)
				}
			}
		}()
		<-began
		h.do(e.Apply, p, Patched)
		<-done
		h.end()
	}
}

// A SIGTRAP that a program keeps waiting waits on.
func TestBlockedTrapWaits(t *testing.T) {
	h := startHost(t)
	h.want("catch 5", "ok")
	h.want("block 5", "ok")
	if err := syscall.Kill(h.pid(), syscall.SIGTRAP); err != nil {
		t.Fatal(err)
	}
	h.do(testEngine().Apply, makePatch(t, libPath, 1, all(100)), Patched)
	h.want("signals", "0")
	h.want("unblock 5", "ok")
	h.want("signals", "1")
}

// Nothing that the program had set for signals changes.
func TestSignalDispositions(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("ignore 5", "ok") // SIGTRAP
	h.want("ignore 31", "ok")
	masks := func() (lines []string) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.pid()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Sig") && !strings.HasPrefix(line, "SigQ") || strings.HasPrefix(line, "Shd") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	before := masks()
	h.do(e.Apply, p, Patched)
	if after := masks(); !slices.Equal(before, after) {
		t.Errorf("signal masks %q, before %q", after, before)
	}
	h.do(e.Revert, p, Reverted)
	h.want("ignored 5", "1")
	h.want("ignored 31", "1")
}

// A stopped process takes the patch, stays stopped, and its parent sees nothing.
func TestStoppedProcess(t *testing.T) {
	h := startHost(t)
	h.want("sleep 2", "ok")
	if err := syscall.Kill(h.pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid()))
		if err != nil {
			t.Fatal(err)
		}
		s := string(text)
		return s[strings.LastIndexByte(s, ')')+2:][:1]
	}
	waitFor(t, "the stop", func() bool { return state() == "T" })
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.do(e.Apply, p, Patched)
	waitFor(t, "the stop to last", func() bool { return state() == "T" })
	if err := syscall.Kill(h.pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.want("f1 1", "101")
}
