package userspace

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch/image"
)

// The benchmarks print figures for whoever collects them, and never fail
// because a machine is slow. Everything that a figure is judged by is measured
// in the same run: machines differ, and so do their hours.

// figure is one measured quantity.
type figure struct {
	name, unit string
	values     []float64 // in ascending order
	target     string    // what is aimed at
	others     string    // what libcareplus takes for it, as published by us before
}

// figures collects what has been measured, for the table.
var figures []figure

func (f *figure) median() float64 { return f.values[len(f.values)/2] }
func (f *figure) p99() float64    { return f.values[len(f.values)*99/100] }

// measured prints median, minimum and 99th percentile.
func measured(name, unit string, values []float64, target, others string) {
	slices.Sort(values)
	f := figure{name, unit, values, target, others}
	fmt.Printf("figure %s %.1f %s\n", name, f.median(), unit)
	fmt.Printf("figure %s_min %.1f %s\n", name, values[0], unit)
	fmt.Printf("figure %s_p99 %.1f %s\n", name, f.p99(), unit)
	figures = append(figures, f)
}

// table prints all figures side by side.
func table() {
	fmt.Printf("\n%-34s %10s %10s %10s  %-5s %-8s %s\n", "", "median", "min", "p99", "", "target", "libcareplus")
	for i := range figures {
		f := &figures[i]
		fmt.Printf("%-34s %10.1f %10.1f %10.1f  %-5s %-8s %s\n", f.name, f.median(), f.values[0], f.p99(), f.unit, f.target, f.others)
	}
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func milliseconds(d time.Duration) float64 { return microseconds(d) / 1e3 }

// BenchmarkUserspace measures all of it, in one order, and prints the table.
// The engine does not watch its canary here: that wait is deliberate.
func BenchmarkUserspace(b *testing.B) {
	for b.Loop() {
		figures = nil
		p := codeAndConstants(b)
		measureStop(b, p, 1, "< 150", "1900")
		measureStop(b, p, 64, "< 2000", "122000")
		measureOne(b, p)
		measureMany(b, p)
		table()
	}
}

// codeAndConstants returns a patch with the segments that those of real fixes
// have, and no variables of its own.
func codeAndConstants(b *testing.B) Patch {
	p := makePatch(b, libPath, 1, all(100))
	p.File.Segments = p.File.Segments[:2]
	artifact, err := image.Encode(p.File)
	if err != nil {
		b.Fatal(err)
	}
	p.SHA256 = sha256.Sum256(artifact)
	return p
}

// startThreads starts a program with so many threads, all but one asleep.
func startThreads(b *testing.B, threads int) *host {
	h := startHost(b)
	if threads > 1 {
		h.want("sleep "+strconv.Itoa(threads-1), "ok")
	}
	return h
}

// measureStop measures for how long threads stand still. Every sample is the
// first application to a new process: the stop in which one thread maps the
// image and the one of all threads in which the functions are switched, added
// up. The floor is what the kernel takes for stopping the same threads and
// letting them go, with nothing done in between, in the same process just before.
func measureStop(b *testing.B, p Patch, threads int, target, others string) {
	const samples = 120
	e := testEngine()
	var floor, first, mapping, undo, again []float64
	for range samples {
		h := startThreads(b, threads)
		floor = append(floor, microseconds(bareStop(b, h)))
		r := h.do(e.Apply, p, Patched)
		first = append(first, microseconds(r.Map+r.Stop))
		mapping = append(mapping, microseconds(r.Map))
		undo = append(undo, microseconds(h.do(e.Revert, p, Reverted).Stop))
		again = append(again, microseconds(h.do(e.Apply, p, Patched).Stop))
		h.end()
	}
	name := "userspace_stop_" + strconv.Itoa(threads) + "thread"
	if threads > 1 {
		name += "s"
	}
	measured(name+"_us", "us", first, target, others)
	measured(name+"_floor_us", "us", floor, "", "")
	measured(name+"_mapping_us", "us", mapping, "", "") // the part of the first stop
	measured(name+"_undo_us", "us", undo, target, "")
	measured(name+"_again_us", "us", again, target, "") // the image was there already
}

// bareStop stops all threads of the program and lets them go again, and
// returns how long that took from the first interrupt on.
func bareStop(b *testing.B, h *host) time.Duration {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", h.pid()))
	if err != nil {
		b.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			b.Fatal(err)
		}
		tids = append(tids, tid)
	}
	type answer struct {
		took time.Duration
		err  error
	}
	a := <-onThread(func() (a answer) {
		check := func(what string, e error) {
			if e != nil && e != unix.Errno(0) && a.err == nil {
				a.err = fmt.Errorf("%s: %w", what, e)
			}
		}
		for _, tid := range tids {
			check("seize", ptraceValue(unix.PTRACE_SEIZE, tid, 0))
		}
		began := time.Now()
		for _, tid := range tids {
			check("interrupt", ptraceValue(unix.PTRACE_INTERRUPT, tid, 0))
		}
		for _, tid := range tids {
			_, err := unix.Wait4(tid, nil, unix.WALL, nil)
			check("wait", err)
		}
		for _, tid := range tids {
			check("detach", ptraceValue(unix.PTRACE_DETACH, tid, 0))
		}
		a.took = time.Since(began)
		return a
	})
	if a.err != nil {
		b.Fatal(a.err)
	}
	return a.took
}

// measureOne measures the whole work on one new process by an engine that knows
// the library already, and the memory that a patch adds to it.
func measureOne(b *testing.B, p Patch) {
	const samples = 120
	e := testEngine()
	var apply, memory []float64
	for range samples {
		h := startHost(b)
		procs, err := e.Find(context.Background(), p.File.BuildID)
		if err != nil || len(procs) != 1 {
			b.Fatalf("%d processes, error %v", len(procs), err)
		}
		before := ownMemory(b, h)
		j := job{engine: e, patch: p, proc: procs[0]}
		began := time.Now()
		r := j.run(context.Background(), doApply)
		apply = append(apply, milliseconds(time.Since(began)))
		if r.Outcome != Patched {
			b.Fatalf("%+v, want it patched", r)
		}
		memory = append(memory, ownMemory(b, h)-before)
		h.end()
	}
	measured("userspace_apply_ms", "ms", apply, "< 1", "")
	measured("userspace_memory_kb", "kB", memory, "", "")
}

// ownMemory returns the kB of memory that exist for this process alone and are
// not a file's: its anonymous pages, which are those of the image, of its state
// area and the private copies of the library's pages that jumps were written
// to, and its page tables. (The kernel's structures for the mappings, about
// 1 kB for four, are not in it.)
func ownMemory(b *testing.B, h *host) (kb float64) {
	for file, field := range map[string]string{"smaps_rollup": "Anonymous:", "status": "VmPTE:"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.pid(), file))
		if err != nil {
			b.Fatal(err)
		}
		found := false
		for line := range bytes.Lines(text) {
			if rest, ok := strings.CutPrefix(string(line), field); ok {
				n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
				if err != nil {
					b.Fatal(err)
				}
				kb, found = kb+float64(n), true
			}
		}
		if !found {
			b.Fatalf("/proc/PID/%s has no %s", file, field)
		}
	}
	return kb
}

// measureMany measures whole calls for fifty new processes, looking for them
// among all processes of the machine included.
func measureMany(b *testing.B, p Patch) {
	const n, samples = 50, 20
	e := testEngine()
	timed := func(op operation, want Outcome) float64 {
		began := time.Now()
		results, err := op(context.Background(), p)
		took := time.Since(began)
		if err != nil || len(results) != n {
			b.Fatalf("%d results, error %v", len(results), err)
		}
		for _, r := range results {
			if r.Outcome != want {
				b.Fatalf("%+v, want %s", r, want)
			}
		}
		return milliseconds(took)
	}
	var on, off, again []float64
	for range samples {
		var hosts []*host
		for range n {
			hosts = append(hosts, startHost(b))
		}
		on = append(on, timed(e.Apply, Patched))
		off = append(off, timed(e.Revert, Reverted))
		again = append(again, timed(e.Apply, Patched))
		for _, h := range hosts {
			h.end()
		}
	}
	measured("userspace_apply_50procs_ms", "ms", on, "< 50", "109")
	measured("userspace_undo_50procs_ms", "ms", off, "< 50", "")
	measured("userspace_apply_50procs_again_ms", "ms", again, "< 50", "")
}
