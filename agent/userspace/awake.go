package userspace

import "golang.org/x/sys/unix"

// latencyRequest is the kernel's file for requests that no processor sleep so
// deeply that waking it takes longer than what is written (PM QoS). A request
// holds as long as the file is open.
const latencyRequest = "/dev/cpu_dma_latency"

// stayAwake asks the kernel to let idle processors poll instead of sleep, until
// release is called. A stopped thread leaves its processor idle again and again,
// and waking that takes several times as long as what is done in the stop. Where
// the kernel has no such file, stops take longer and nothing else changes.
func stayAwake() (release func()) {
	fd, err := unix.Open(latencyRequest, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	var now [4]byte // microseconds, 32 bits
	if _, err := unix.Write(fd, now[:]); err != nil {
		unix.Close(fd)
		return func() {}
	}
	return func() { unix.Close(fd) }
}

// keepAway moves the calling thread off the processor on which the process's
// first thread ran last: there the two would keep each other waiting. It is for
// threads that end with their work. Where there is only one processor, stops
// take longer and nothing else changes.
func keepAway(h *handle) {
	text, err := h.text("stat", make([]byte, 1024), maxStatusBytes)
	if err != nil {
		return
	}
	cpu, ok := parseProcessor(string(text))
	var set unix.CPUSet
	if !ok || unix.SchedGetaffinity(0, &set) != nil {
		return
	}
	if set.Clear(cpu); set.Count() > 0 {
		_ = unix.SchedSetaffinity(0, &set)
	}
}
