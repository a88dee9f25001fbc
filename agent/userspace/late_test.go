package userspace

import (
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On a busy machine threads do not stop in time, the engine gives up, and they
// reach their stop later. They must not see that either.
func TestLateThreadsSeeNothing(t *testing.T) {
	h := startHost(t)
	e := New(Options{Children: true, Watch: -1, StopWait: time.Millisecond, Answer: 20 * time.Second})
	p := makePatch(t, libPath, 1, all(100))
	h.want("poll 4", "ok")
	waitFor(t, "the threads to wait", func() bool { return h.ask("waits") == "4" })
	settle(t, h)
	confine(t, h)
	stop := hog(t)
	results, err := e.Apply(t.Context(), p)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("with no processor to run on: %+v", of(t, results, h.pid()))
	waitFor(t, "the patch to be applied", func() bool {
		results, err := e.Apply(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		o := of(t, results, h.pid()).Outcome
		return o == Patched || o == Already
	})
	h.want("eintr", "0")
	h.want("waits", "4")
}

// confine keeps all threads of the program on the first processor.
func confine(t *testing.T, h *host) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(h.pid()) + "/task/*")
	if err != nil {
		t.Fatal(err)
	}
	var first unix.CPUSet
	first.Set(0)
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(tid, &first); err != nil {
			t.Fatal(err)
		}
	}
}

// hog keeps the first processor from everything else for a moment, until it is
// stopped.
func hog(t *testing.T) (stop func()) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors: one to take away")
	}
	started, quit, done := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and end the thread with the goroutine
		var first unix.CPUSet
		first.Set(0)
		err := unix.SchedSetaffinity(0, &first)
		if err == nil {
			err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		}
		started <- err
		const most = 400 * time.Millisecond
		for end := time.Now().Add(most); err == nil && time.Now().Before(end); {
			select {
			case <-quit:
				return
			default:
			}
		}
	}()
	if err := <-started; err != nil {
		t.Skipf("no real-time priority here: %v", err)
	}
	return func() { close(quit); <-done }
}
