package kernel_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"livemend.dev/livemend/internal/guest"
)

// BenchmarkKernelApply compares the agent's way from a verified module to the end
// of the switch with a bare finit_module, in one guest with one processor: a
// second one, when idle, takes its part in a switch at the kernel's next beat,
// which would hide what is measured. The agent's way has the intent record made
// durable on a disk.
func BenchmarkKernelApply(b *testing.B) {
	const times = 60
	t := b
	s := boot(t, guest.Config{Kernel: guest.Debian61, Disk: guest.Disk(t)})
	one := s.give("livemend_one", build(t, guest.Debian61, "livemend_one", "patch.c", `TEXT "one"`))
	r := s.do(request{Do: "bench", Module: one, Number: times})
	if len(r.Times) != times {
		t.Fatalf("%d of %d times: %s", len(r.Times), times, r.Error)
	}
	// Each round compares with the bare load of its own moment: the machine may be
	// busier in the next.
	var bare, engine, kept, overhead []time.Duration
	for _, one := range r.Times {
		bare, engine, kept, overhead = append(bare, one.Bare), append(engine, one.Engine), append(kept, one.Kept), append(overhead, one.Kept-one.Bare)
	}
	figure := func(name string, list []time.Duration, percent int) {
		slices.Sort(list)
		fmt.Printf("figure kernel_apply_%s %.2f ms\n", name, list[min(len(list)*percent/100, len(list)-1)].Seconds()*1000)
	}
	figure("bare_ms", bare, 50)
	figure("engine_ms", engine, 50) // without the intent record
	figure("kept_ms", kept, 50)
	figure("overhead_ms", overhead, 50)
	figure("overhead_ms_min", overhead, 0)
	figure("overhead_ms_p99", overhead, 99)
	for b.Loop() { // the figures above are the result
	}
}
