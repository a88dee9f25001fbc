package userspace

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A thread that has just stopped has not ended, though the kernel tells of its
// stop whatever it is asked; and the stop is still there afterwards.
func TestStoppedHasNotEnded(t *testing.T) {
	h := startHost(t)
	h.want("sleep 1", "ok")
	tids, err := numbersOf(h.pid())
	if err != nil || len(tids) != 2 {
		t.Fatalf("threads %v, %v", tids, err)
	}
	for _, tid := range tids {
		err := <-onThread(func() error {
			for _, request := range []int{unix.PTRACE_SEIZE, unix.PTRACE_INTERRUPT} {
				if e := ptraceValue(request, tid, 0); e != 0 {
					return e
				}
			}
			waitFor(t, "the stop", func() bool {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", h.pid(), tid))
				return err == nil && strings.Contains(string(text), ") t ")
			})
			if exited(h.pid(), tid) {
				t.Errorf("thread %d of process %d counts as ended", tid, h.pid())
			}
			if got, _ := nextStop(); got != tid {
				t.Errorf("the next stop is of thread %d, want %d", got, tid)
			}
			if exited(h.pid(), tid) {
				t.Errorf("thread %d counts as ended after its stop was taken", tid)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// One that was killed has ended, whether it is the first or not.
func TestKilledHasEnded(t *testing.T) {
	h := startHost(t)
	h.want("sleep 1", "ok")
	pid := h.pid()
	tids, err := numbersOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	err = <-onThread(func() error {
		for _, tid := range tids {
			if e := ptraceValue(unix.PTRACE_SEIZE, tid, 0); e != 0 {
				return e
			}
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return err
		}
		for i := range tids {
			tid := tids[len(tids)-1-i] // the first ends last
			waitFor(t, fmt.Sprintf("the end of thread %d", tid), func() bool { return exited(pid, tid) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func numbersOf(pid int) ([]int, error) {
	dir, err := unix.Open(fmt.Sprintf("/proc/%d/task", pid), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	return numbers(dir, make([]byte, direntBytes), nil, maxThreads)
}
