package userspace

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestOneFunction(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, map[string][]byte{"f1": add(100)})
	h.want("f1 5", "6")
	h.do(e.Status, p, Unpatched)
	r := h.do(e.Apply, p, Patched)
	t.Logf("stop %v, %d thread; mapping %v", r.Stop, r.Threads, r.Map)
	h.want("f1 5", "105")
	h.want("f2 5", "7")
	h.do(e.Status, p, Patched)
	h.do(e.Apply, p, Already)
	r = h.do(e.Revert, p, Reverted)
	t.Logf("undo: stop %v", r.Stop)
	h.want("f1 5", "6")
	h.do(e.Revert, p, Unpatched)
	h.do(e.Status, p, Unpatched)
}

// all is new code for eight functions.
func all(n byte) map[string][]byte {
	code := make(map[string][]byte)
	for _, name := range []string{"f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8"} {
		code[name] = add(n)
	}
	return code
}

// While threads call two of the functions in turn, they never see one old and
// one new.
func TestFunctionsSwitchTogether(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("call 7", "ok")
	for range 5 {
		r := h.do(e.Apply, p, Patched)
		t.Logf("stop %v, %d threads, tries %d", r.Stop, r.Threads, r.Tries)
		h.want("f8 1", "101")
		h.do(e.Revert, p, Reverted)
		h.want("f8 1", "9")
	}
	h.want("broken", "0")
}

func TestManyThreads(t *testing.T) {
	for _, n := range []int{7, 63} {
		t.Run(strconv.Itoa(n+1), func(t *testing.T) {
			h := startHost(t)
			e := testEngine()
			p := makePatch(t, libPath, 1, all(100))
			h.want("sleep "+strconv.Itoa(n), "ok")
			for range 3 {
				r := h.do(e.Apply, p, Patched)
				if r.Threads != n+1 {
					t.Errorf("%d threads stopped, want %d", r.Threads, n+1)
				}
				t.Logf("stop %v, %d threads; mapping %v", r.Stop, r.Threads, r.Map)
				h.want("f3 1", "101")
				r = h.do(e.Revert, p, Reverted)
				t.Logf("undo: stop %v", r.Stop)
			}
		})
	}
}

// Threads are born and end all the time.
func TestThreadsSpawnedContinuously(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("breed 4", "ok")
	for range 10 {
		h.do(e.Apply, p, Patched)
		h.want("f1 1", "101")
		h.do(e.Revert, p, Reverted)
		h.want("f1 1", "2")
	}
}

// A thread that stays in an old function, blocked or running, in it or in what
// it calls, keeps the patch away; nothing is left behind. When it leaves, the
// patch goes on.
func TestBusy(t *testing.T) {
	for _, test := range []struct{ name, enter, leave, function string }{
		{"blocked", "hold 1", "release", "hold"},
		{"caller on the stack", "nest 1", "release", "nested"},
		{"running", "turn 1", "stopturn", "turn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := startHost(t)
			e := New(Options{Children: true, Watch: -1, StopWait: 500 * time.Millisecond, Patience: 400 * time.Millisecond})
			p := makePatch(t, libPath, 1, map[string][]byte{"f1": add(100), test.function: add(0)})
			h.want(test.enter, "ok")
			before := len(h.maps())
			r := h.do(e.Apply, p, Failed)
			if !strings.Contains(r.Reason, "busy") || r.Tries < 2 {
				t.Errorf("reason %q after %d tries, want busy after several", r.Reason, r.Tries)
			}
			h.want("f1 1", "2")
			h.do(e.Status, p, Unpatched)
			if n := len(h.maps()); n != before {
				t.Errorf("%d mappings, %d before: something was left behind", n, before)
			}
			h.want(test.leave, "ok")
			h.do(e.Apply, p, Patched)
			h.want("f1 1", "101")
		})
	}
}

// A busy process is patched within the engine's patience.
func TestFrameFinish(t *testing.T) {
	h := startHost(t)
	e := New(Options{Children: true, Watch: -1, Patience: 20 * time.Second})
	p := makePatch(t, libPath, 1, map[string][]byte{"f1": add(100), "hold": add(0)})
	h.want("hold 1", "ok")
	done := make(chan Result)
	go func() { done <- h.do(e.Apply, p, Patched) }()
	waitFor(t, "an image in the target", func() bool { return countStates(h) > 0 })
	h.want("release", "ok")
	if r := <-done; r.Tries < 2 {
		t.Errorf("patched at try %d, want a later one", r.Tries)
	}
	h.want("f1 1", "101")
}

// A thread inside the new code keeps the undo away.
func TestBusyRevert(t *testing.T) {
	h := startHost(t)
	e := New(Options{Children: true, Watch: -1, Patience: 50 * time.Millisecond})
	// f1's new code calls turn's new code, which is: read from the pipe f1 is given.
	wait := []byte{
		0x48, 0x83, 0xec, 0x18, // sub rsp, 24
		0x31, 0xc0, // xor eax, eax (read)
		0x48, 0x8d, 0x74, 0x24, 0x08, // lea rsi, [rsp+8]
		0xba, 1, 0, 0, 0, // mov edx, 1
		0x0f, 0x05, // syscall
		0xb8, 1, 0, 0, 0, // mov eax, 1
		0x48, 0x83, 0xc4, 0x18, // add rsp, 24
		0xc3, // ret
	}
	p := makePatch(t, libPath, 1, map[string][]byte{"hold": wait, "f1": add(100)})
	h.do(e.Apply, p, Patched)
	h.want("hold 1", "ok")
	r := h.do(e.Revert, p, Failed)
	if !strings.Contains(r.Reason, "busy") {
		t.Errorf("reason %q, want busy", r.Reason)
	}
	h.want("f1 1", "101")
	h.do(e.Status, p, Patched)
	h.want("release", "ok")
	h.do(e.Revert, p, Reverted)
	h.want("f1 1", "2")
}

func TestRevertAndApplyAgain(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.want("spin 1", "ok")
	h.do(e.Apply, p, Patched)
	mappings := len(h.maps())
	const rounds = 15
	for range rounds {
		h.do(e.Revert, p, Reverted)
		h.want("f5 1", "6")
		h.do(e.Apply, p, Patched)
		h.want("f5 1", "101")
	}
	if n := len(h.maps()); n != mappings {
		t.Errorf("%d mappings after %d rounds, %d before", n, rounds, mappings)
	}
}

// Level 2 takes level 1's place in one stop; functions that only level 1
// redirects are themselves again.
func TestReplaceLevel(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	one := makePatch(t, libPath, 1, map[string][]byte{"f1": add(100), "f2": add(100)})
	two := makePatch(t, libPath, 2, map[string][]byte{"f2": add(120), "f3": add(120)})
	h.do(e.Apply, one, Patched)
	h.do(e.Status, two, Unpatched)
	h.do(e.Apply, two, Patched)
	h.want("f1 1", "2")
	h.want("f2 1", "121")
	h.want("f3 1", "121")
	if r := h.do(e.Apply, one, Already); !strings.Contains(r.Reason, "level 2") {
		t.Errorf("reason %q, want the newer level named", r.Reason)
	}
	h.do(e.Status, one, Already)
	if r := h.do(e.Revert, one, Failed); !strings.Contains(r.Reason, "level 2") {
		t.Errorf("reason %q, want the level that is on named", r.Reason)
	}
	h.do(e.Revert, two, Reverted)
	h.want("f2 1", "3")
	h.want("f3 1", "4")
	h.do(e.Apply, one, Patched)
	h.want("f1 1", "101")
	// The same bytes, published again at a higher level.
	again := one
	again.Level = 3
	h.do(e.Status, again, Unpatched)
	h.do(e.Apply, again, Patched)
	h.want("f1 1", "101")
	h.do(e.Apply, one, Already)
	h.do(e.Revert, again, Reverted)
	h.want("f1 1", "2")
}

func TestEndbr64Stays(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, map[string][]byte{"landing": add(100)})
	if p.File.Hunks[0].JumpOff() != 4 {
		t.Fatal("the compiler made no endbr64")
	}
	h.do(e.Apply, p, Patched)
	h.want("landing 1", "101")
	at := libraryBias(t, h) + p.File.Hunks[0].Off
	if got := peek(t, h, at, 4); string(got) != "\xf3\x0f\x1e\xfa" {
		t.Errorf("the function starts with %x, want endbr64", got)
	}
	h.do(e.Revert, p, Reverted)
	h.want("landing 1", "51")
}

// The image's pages have their own protections, and none is writable and
// executable.
func TestMemoryProtection(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	before := make(map[uint64]bool)
	for _, m := range h.maps() {
		before[m.start] = true
	}
	h.do(e.Apply, p, Patched)
	var got []prot
	for _, m := range h.maps() {
		if m.prot&protWrite != 0 && m.prot&protExec != 0 {
			t.Errorf("the mapping at %x is writable and executable", m.start)
		}
		if !before[m.start] && m.kind == kindAnon {
			got = append(got, m.prot)
		}
	}
	want := []prot{protRead, protRead | protExec, protRead, protRead | protWrite}
	if !slices.Equal(got, want) {
		t.Errorf("protections %v, want %v", got, want)
	}
}

func TestTwoProcesses(t *testing.T) {
	one, two := startHost(t), startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	results, err := e.Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{one, two} {
		if r := of(t, results, h.pid()); r.Outcome != Patched || r.Command != "host" || r.Start == 0 {
			t.Errorf("result %+v, want host patched", r)
		}
		h.want("f4 1", "101")
	}
	// A third process that starts later is the only one that is patched then.
	three := startHost(t)
	three.do(e.Apply, p, Patched)
	one.do(e.Apply, p, Already)
	three.want("f4 1", "101")
}

// A forked child carries the patch with it and is recognised, by an engine that
// has never seen its parent, and undone by itself.
func TestForkedChild(t *testing.T) {
	h := startHost(t)
	p := makePatch(t, libPath, 1, all(100))
	h.do(testEngine().Apply, p, Patched)
	child, err := strconv.Atoi(h.ask("fork"))
	if err != nil {
		t.Fatal(err)
	}
	h.want("child f1 1", "101")
	e := testEngine()
	results, err := e.Status(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if r := of(t, results, child); r.Outcome != Patched {
		t.Errorf("child: %+v, want it patched", r)
	}
	results, err = e.Revert(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if r := of(t, results, child); r.Outcome != Reverted {
		t.Errorf("child: %+v, want it reverted", r)
	}
	h.want("child f1 1", "2")
	h.want("f1 1", "2")
}

// A child that its parent waits for is left alone by default: the two would
// take each other's news from the kernel.
func TestOwnChild(t *testing.T) {
	h := startHost(t)
	p := makePatch(t, libPath, 1, all(100))
	none := Options{Watch: -1}
	results, err := New(none).Apply(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if r := of(t, results, h.pid()); r.Outcome != Skipped || r.Reason == "" {
		t.Errorf("%+v, want it skipped with a reason", r)
	}
	h.want("f1 1", "2")
}
