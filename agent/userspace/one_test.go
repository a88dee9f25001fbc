package userspace

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
)

// One process is patched and the other is not; what is not the library's
// process gives no result.
func TestApplyToOne(t *testing.T) {
	p := makePatch(t, libPath, 1, all(100))
	e := testEngine()
	one, other := startHost(t), startHost(t)
	for i, want := range []Outcome{Patched, Already} {
		results, err := e.ApplyTo(t.Context(), p, one.pid())
		if err != nil || len(results) != 1 || results[0].Outcome != want {
			t.Fatalf("call %d: %+v, %v; want %s", i, results, err, want)
		}
	}
	one.want("f1 1", "101")
	other.want("f1 1", "2")
	for _, pid := range []int{os.Getppid(), 1 << 22} { // another program, no process
		if results, err := e.ApplyTo(t.Context(), p, pid); err != nil || len(results) != 0 {
			t.Errorf("process %d: %+v, %v", pid, results, err)
		}
	}
	ids, err := e.BuildIDs(t.Context(), one.pid())
	if err != nil || len(ids) < 3 { // program, library, libc
		t.Errorf("build-ids %v, %v", ids, err)
	}
	found := false
	for _, l := range e.Libraries() {
		if l.BuildID != p.File.BuildID {
			continue
		}
		fd, err := l.Open()
		if err != nil {
			t.Fatal(err)
		}
		to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || to != libPath {
			t.Errorf("the library is %q, %v", to, err)
		}
		if err := os.NewFile(uintptr(fd), "").Close(); err != nil {
			t.Error(err)
		}
		found = true
	}
	if !found {
		t.Error("nothing says where the library is mapped")
	}
}

// A child that is forked after the patch runs it and is recognised.
func TestForkedChildIsPatched(t *testing.T) {
	p := makePatch(t, libPath, 1, all(100))
	e := testEngine()
	h := startHost(t)
	h.do(e.Apply, p, Patched)
	child, err := strconv.Atoi(h.ask("fork"))
	if err != nil {
		t.Fatal(err)
	}
	results, err := e.Status(t.Context(), p)
	if err != nil || !of(t, results, child).Outcome.Live() {
		t.Errorf("the child is %+v, %v", of(t, results, child), err)
	}
	if results, err = e.ApplyTo(t.Context(), p, child); err != nil || len(results) != 1 || results[0].Outcome != Already {
		t.Errorf("a look at the child: %+v, %v", results, err)
	}
}

// Canaries that end well, by chance right after the patch, condemn nothing.
func TestCanaryThatEndsWell(t *testing.T) {
	p := makePatch(t, libPath, 1, all(100))
	g := guard.New(time.Minute)
	e := New(Options{Children: true, Watch: time.Second, Guard: g})
	hosts := []*host{startHost(t), startHost(t), startHost(t)}
	ended := make(chan *host, 2)
	go func() { // the two that are patched first end as soon as they are on probation
		defer close(ended)
		done := map[*host]bool{}
		for len(done) < cap(ended) && t.Context().Err() == nil {
			for _, pid := range g.Watched() {
				for _, h := range hosts {
					if pid == h.pid() && !done[h] && len(done) < cap(ended) {
						done[h] = true
						if err := h.in.Close(); err != nil {
							t.Error(err)
						}
						ended <- h
					}
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	results, err := e.Apply(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	closed := map[*host]bool{}
	for h := range ended {
		closed[h] = true
	}
	for _, h := range hosts {
		if !closed[h] {
			if err := h.in.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, h := range hosts {
		if r := of(t, results, h.pid()); r.Outcome != Patched {
			t.Errorf("%+v, want patched", r)
		}
		if err := h.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if why := g.Guilty(p.SHA256); why != "" {
		t.Error(why)
	}
}

func TestParseExit(t *testing.T) {
	for in, want := range map[string]int{
		"12 (a) Z 1 2 3 139\n":    139,
		"12 (a) Z) S 1 2 3 139\n": -1,
		"12 (a) S 1 2 3 139\n":    -1,
		"12 (a) Z 1 2 3 x\n":      -1,
		"12 (a) Z":                -1,
		"":                        -1,
	} {
		got, ok := parseExit(in)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

// A process that the engine may not look into says nothing of the machine when
// others were looked at before it.
func TestDeniedProcessAmongMany(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give rights away")
	}
	e := testEngine()
	id := buildID(t, libPath)
	err := <-onThread(func() error {
		const nobody = 65534
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 { // of this thread, which ends
			return e
		}
		_, err := e.find(context.Background(), id, map[int]bool{os.Getpid(): true})
		return err
	})
	if err != nil {
		t.Errorf("in a later pass: %v", err)
	}
}
