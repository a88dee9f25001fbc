package userspace

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"
)

// figures prints median, minimum and 99th percentile for whoever collects them.
func figures(name, unit string, values []float64) {
	slices.Sort(values)
	fmt.Printf("figure %s %.1f %s\n", name, values[len(values)/2], unit)
	fmt.Printf("figure %s_min %.1f %s\n", name, values[0], unit)
	fmt.Printf("figure %s_p99 %.1f %s\n", name, values[len(values)*99/100], unit)
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// BenchmarkStop measures how long a process stands still: first the stop in
// which one thread maps the image, then the one of all threads.
func BenchmarkStop(b *testing.B) {
	for _, kind := range []struct {
		name, start string
		threads     int
	}{{"1thread", "", 1}, {"8threads", "sleep", 8}, {"64threads", "sleep", 64}, {"8spinning", "spin", 8}} {
		b.Run(kind.name, func(b *testing.B) {
			const rounds = 100
			p := makePatch(b, libPath, 1, all(100))
			e := testEngine()
			var stops, maps, totals []float64
			for b.Loop() {
				h := startHost(b)
				if kind.start != "" {
					h.want(kind.start+" "+strconv.Itoa(kind.threads-1), "ok")
				}
				for range rounds {
					r := h.do(e.Apply, p, Patched)
					stops = append(stops, microseconds(r.Stop))
					if r.Map > 0 {
						maps = append(maps, microseconds(r.Map))
						totals = append(totals, microseconds(r.Map+r.Stop))
					}
					h.do(e.Revert, p, Reverted)
				}
				h.end()
			}
			figures("userspace_switch_"+kind.name+"_us", "us", stops)
			figures("userspace_map_"+kind.name+"_us", "us", maps)
			figures("userspace_stop_"+kind.name+"_us", "us", totals)
		})
	}
}

// BenchmarkProcesses measures one call for fifty processes.
func BenchmarkProcesses(b *testing.B) {
	const n = 50
	p := makePatch(b, libPath, 1, all(100))
	e := testEngine()
	for range n {
		startHost(b)
	}
	var on, off, each []float64
	timed := func(op operation, want Outcome) time.Duration {
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
		return took
	}
	for b.Loop() {
		took := timed(e.Apply, Patched)
		on = append(on, microseconds(took)/1e3)
		each = append(each, microseconds(took)/1e3/n)
		off = append(off, microseconds(timed(e.Revert, Reverted))/1e3)
	}
	figures("userspace_apply_50procs_ms", "ms", on)
	figures("userspace_apply_ms", "ms", each)
	figures("userspace_undo_50procs_ms", "ms", off)
}
