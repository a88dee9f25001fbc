package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/patch"
)

// Cases about patches that go on and off, in one process and in many.
var (
	dozens = library.add("dozens", `
long numserv_dozen(long x) { return 12 * x + (x >> 60); }
`)
	hundreds = (&binary{name: "libhundreds.so", flags: []string{"-shared", "-Wl,-soname,libhundreds.so"}}).add("hundreds", `
long numserv_hundred(long x) { return 100 * x + (x >> 60); }
`)
	// All references of this one stay within it.
	symbolic = (&binary{name: "libsymbolic.so", flags: []string{"-shared", "-Wl,-Bsymbolic"}}).add("symbolic", `
long symbolic_base = 12;
KEEP long symbolic_inner(long x) { return symbolic_base * x; }
KEEP long simplest(long x) { return x * 1000; } // the program has one, too
long symbolic_dozen(long x) { return symbolic_inner(x) + 0; }
`)
	late = (&binary{name: "liblate.so", flags: []string{"-shared"}}).add("late", `
long late_work(long x) { return x * 10 + (x >> 1); }
`)
	// Its constructor waits for a byte, so that the patch meets it there.
	constructed = (&binary{name: "libconstructed.so", flags: []string{"-shared"}}).add("constructed", `
static volatile long seen;
KEEP long constructed_work(long x) { return x * 10 + (x >> 1); }
__attribute__((constructor)) static void begin(void) {
	char c;
	if (read(0, &c, 1) != 1) abort();
	seen = constructed_work(4);
}
long constructor(long x) { return seen; }
`)
)

// lifecycle are the cases of going on and off.
func lifecycle(t *testing.T) {
	on, off := "12 * x", "13 * x"
	t.Run("numserv", func(t *testing.T) {
		p := startWith(t, library, hundreds.binary)
		one, two := dozens.fix(t, 1, on, off), hundreds.fix(t, 1, "100 * x", "200 * x")
		p.apply(one)
		p.want("numserv_dozen 1", "13")
		p.want("numserv_hundred 1", "100")
		p.apply(two)
		p.want("numserv_hundred 1", "200")
	})
	t.Run("numserv_bsymbolic", func(t *testing.T) {
		p := startWith(t, symbolic.binary)
		fix := symbolic.fix(t, 1, "symbolic_inner(x) + 0", "symbolic_inner(x) + simplest(x) + symbolic_base")
		p.want("symbolic_dozen 1", "12")
		p.want("simplest 1", "2")
		p.apply(fix)
		p.want("symbolic_dozen 1", "1024") // with the library's own simplest
	})
	t.Run("revert", func(t *testing.T) {
		p := start(t)
		fix := dozens.fix(t, 1, on, off)
		for range 3 {
			p.apply(fix)
			p.want("numserv_dozen 1", "13")
			p.revert(fix)
			p.want("numserv_dozen 1", "12")
			p.does(engine(patience).Revert, fix, userspace.Unpatched)
		}
	})
	// Whatever levels there were, one revert leaves none.
	t.Run("revert_all", func(t *testing.T) {
		p, q := start(t), start(t)
		one, two := dozens.fix(t, 1, on, off), dozens.fix(t, 2, on, "14 * x")
		p.apply(one)
		all(t, engine(patience).Apply, two)
		for _, r := range all(t, engine(patience).Revert, two) {
			if r.Outcome != userspace.Reverted {
				t.Errorf("%+v", r)
			}
		}
		p.want("numserv_dozen 1", "12")
		q.want("numserv_dozen 1", "12")
		p.does(engine(patience).Status, one, userspace.Unpatched)
	})
	// All that is on one library goes, what is on the other stays.
	target := func(first bool) func(t *testing.T) {
		return func(t *testing.T) {
			p := startWith(t, library, hundreds.binary)
			one, two := dozens.fix(t, 1, on, off), hundreds.fix(t, 1, "100 * x", "200 * x")
			p.apply(one)
			p.apply(two)
			if first {
				p.revert(one)
				p.want("numserv_dozen 1", "12")
				p.want("numserv_hundred 1", "200")
				return
			}
			p.revert(two)
			p.want("numserv_dozen 1", "13")
			p.want("numserv_hundred 1", "100")
		}
	}
	t.Run("revert_all_target1", target(true))
	t.Run("revert_all_target2", target(false))
	t.Run("revert_and_patch", func(t *testing.T) {
		p := start(t)
		one, two := dozens.fix(t, 1, on, off), dozens.fix(t, 2, on, "14 * x")
		p.apply(one)
		p.apply(two) // takes one's place in a single stop
		p.want("numserv_dozen 1", "14")
		p.revert(two)
		p.apply(one)
		p.want("numserv_dozen 1", "13")
	})
	// A patch that is not fit changes nothing, whatever is on.
	t.Run("revert_with_invalid", func(t *testing.T) {
		p := start(t)
		fix := dozens.fix(t, 1, on, off)
		p.apply(fix)
		bad, file := fix, *fix.File
		file.Hunks = nil
		bad.File = &file
		for _, op := range []operation{engine(patience).Revert, engine(patience).Apply} {
			if results, err := op(t.Context(), bad); !errors.Is(err, userspace.ErrPatch) || results != nil {
				t.Errorf("%v, %v; want it refused as a whole", results, err)
			}
		}
		p.does(engine(patience).Revert, dozens.fix(t, 2, on, "14 * x"), userspace.Failed) // is not the one that is on
		p.want("numserv_dozen 1", "13")
		p.revert(fix)
		p.want("numserv_dozen 1", "12")
	})
	t.Run("process", func(t *testing.T) {
		p := start(t)
		fix := inProgram.fix(t, 1, "x + 1", "x + 2")
		p.apply(fix)
		p.want("simplest 5", "7")
	})
	t.Run("process_revert", func(t *testing.T) {
		p := start(t)
		fix := inProgram.fix(t, 1, "x + 1", "x + 2")
		for range 3 {
			p.apply(fix)
			p.want("simplest 5", "7")
			p.revert(fix)
			p.want("simplest 5", "6")
		}
	})
	// What is on is read from the processes, by an engine that has seen nothing.
	t.Run("patches", func(t *testing.T) {
		p := start(t)
		one, two := dozens.fix(t, 1, on, off), dozens.fix(t, 2, on, "14 * x")
		p.apply(one)
		p.apply(two)
		q := start(t)
		for _, want := range []struct {
			p    *process
			fix  userspace.Patch
			what userspace.Outcome
		}{{p, one, userspace.Already}, {p, two, userspace.Patched}, {q, one, userspace.Unpatched}, {q, two, userspace.Unpatched}} {
			want.p.does(engine(patience).Status, want.fix, want.what)
		}
	})
	t.Run("buildid", func(t *testing.T) {
		p := startWith(t, hundreds.binary)
		fix := dozens.fix(t, 1, on, off)
		file := *fix.File
		other := hundreds.fix(t, 1, "100 * x", "200 * x").File.BuildID
		if got := all(t, engine(patience).Apply, fix); len(got) != 0 {
			t.Errorf("%+v, want no process with this build-id", got)
		}
		// The same patch, forged to name the library that is there.
		file.BuildID = other
		forged := userspace.Patch{File: &file, SHA256: fix.SHA256, Level: 1}
		if r := p.does(engine(patience).Apply, forged, userspace.Failed); r.Reason == "" {
			t.Error("there is no reason")
		}
		p.want("numserv_hundred 1", "100")
	})
	t.Run("nolibpulp", func(t *testing.T) {
		p, q := startWith(t), start(t) // p has not got the library
		got := all(t, engine(patience).Apply, dozens.fix(t, 1, on, off))
		if _, there := got[p.pid()]; there || got[q.pid()].Outcome != userspace.Patched {
			t.Errorf("%+v, want only the process with the library", got)
		}
	})
	t.Run("manyprocesses", func(t *testing.T) {
		const n = 20
		fix := dozens.fix(t, 1, on, off)
		var list []*process
		for range n {
			list = append(list, start(t))
		}
		for _, step := range []struct {
			op     operation
			want   userspace.Outcome
			answer string
		}{{engine(patience).Apply, userspace.Patched, "13"}, {engine(patience).Revert, userspace.Reverted, "12"}} {
			got := all(t, step.op, fix)
			for _, p := range list {
				if o := got[p.pid()].Outcome; o != step.want {
					t.Errorf("outcome %q, want %q", o, step.want)
				}
				p.want("numserv_dozen 1", step.answer)
			}
		}
	})
	t.Run("stress", func(t *testing.T) {
		p, q := start(t), start(t)
		one, two := dozens.fix(t, 1, on, off), dozens.fix(t, 2, on, "14 * x")
		p.want("threading_start 1", "0")
		q.want("deadlock_start 2", "0")
		mappings := 0
		for round := range 25 {
			e := engine(patience)
			for _, step := range []struct {
				op     operation
				fix    userspace.Patch
				answer string
			}{{e.Apply, one, "13"}, {e.Apply, two, "14"}, {e.Revert, two, "12"}} {
				all(t, step.op, step.fix)
				p.want("numserv_dozen 1", step.answer)
				q.want("numserv_dozen 1", step.answer)
			}
			if n := q.images(); round == 0 {
				mappings = n
			} else if n != mappings {
				t.Fatalf("round %d: %d mappings of images, %d before", round, n, mappings)
			}
		}
	})
	// No file appears where the program is, nor where it puts its temporary ones.
	t.Run("tempfiles", func(t *testing.T) {
		program.build(t)
		dir := t.TempDir()
		cmd := exec.Command(program.path)
		cmd.Dir, cmd.Env = dir, []string{"TMPDIR=" + dir, preload(t, library)}
		p := launch(t, cmd)
		files := func() []string {
			list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid()))
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		before := files()
		p.apply(dozens.fix(t, 1, on, off))
		p.revert(dozens.fix(t, 1, on, off))
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if after := files(); !slices.Equal(before, after) {
			t.Errorf("open files %v, before %v", after, before)
		}
	})
	// A library that comes later is patched when it is there, and again when it
	// has gone and come back.
	t.Run("dlopen", func(t *testing.T) {
		p := startWith(t)
		fix := late.fix(t, 1, "x * 10", "x * 20")
		if got := all(t, engine(patience).Apply, fix); len(got) != 0 {
			t.Errorf("%+v, want no process before the library is there", got)
		}
		for range 3 {
			p.want("open "+late.binary.path, "ok")
			p.want("late_work 1", "10")
			p.apply(fix)
			p.want("late_work 1", "20")
			p.want("close", "ok")
			if got := all(t, engine(patience).Status, fix); len(got) != 0 {
				t.Errorf("%+v, want no process when the library is gone", got)
			}
		}
	})
	t.Run("constructor", func(t *testing.T) {
		p := startWith(t)
		fix := constructed.fix(t, 1, "x * 10", "x * 20")
		p.say("open " + constructed.binary.path)
		p.waitLibrary(fix.File.BuildID)
		p.apply(fix)
		p.say("x")
		if got := p.line(); got != "ok" {
			t.Fatal(got)
		}
		p.line() // what is left of the line with the byte
		p.want("constructor", "82")
	})
}

// waitLibrary waits until the program has mapped the library.
func (p *process) waitLibrary(id patch.BuildID) {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		found, err := engine(patience).Find(p.t.Context(), id)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(found) > 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatal("the library does not appear")
		}
	}
}

// images counts the program's mappings of anonymous code and constants.
func (p *process) images() (n int) {
	for _, line := range p.maps() {
		f := strings.Fields(line)
		if len(f) == 5 && f[1] == "r-xp" && f[4] == "0" {
			n++
		}
	}
	return n
}
