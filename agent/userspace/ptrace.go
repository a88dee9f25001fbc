package userspace

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and flags of ptrace(2) that x/sys does not name.
const (
	ptraceGetSigmask   = 0x420a
	ptraceSetSigmask   = 0x420b
	ptracePeekSiginfo  = 0x4209
	ptraceGetRseq      = 0x420f
	optSysgood         = 0x1
	optTraceExec       = 0x10
	optSuspendSeccomp  = 0x200000
	eventExec          = 4
	eventStop          = 128
	syscallStopSignal  = int(unix.SIGTRAP) | 0x80
	peekShared         = 1
	waitStopped        = 2
	cldDumped          = 3  // last of the codes that say that a process ended
	peekSignals        = 16 // pending signals that are looked at; more count as pending
	kernelSigsetBytes  = 8
	kernelSiginfoBytes = 128
)

// baseOptions never includes PTRACE_O_EXITKILL: when the agent dies, its
// targets go on.
const baseOptions = optSysgood | optTraceExec

// ptrace makes one request. The kernel binds a tracee to the thread that
// seized it, so every call for it comes from one locked thread (onThread).
func ptrace(request, tid int, addr uintptr, data unsafe.Pointer) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, uintptr(data), 0, 0)
	return e
}

// ptraceValue makes one request whose data is a number.
func ptraceValue(request, tid int, value uintptr) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, value, 0, 0)
	return e
}

// stopInfo is what the kernel reports of one stop: siginfo_t of SIGCHLD.
type stopInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// nextStop returns the next thread of ours that has stopped, without waiting
// and without reaping any that ended: tid 0 means none.
func nextStop() (tid, status int) {
	var info stopInfo
	_, _, e := unix.RawSyscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		waitStopped|unix.WNOHANG|unix.WALL|unix.WNOTHREAD, 0, 0)
	if e != 0 {
		return 0, 0 // ECHILD: all of them are gone
	}
	return int(info.pid), int(info.status)
}

// exited reports whether a traced thread has ended. A thread other than the
// first is reaped, so that the kernel stops counting it; the first is left to
// its parent. The kernel tells of a tracee's stop even when only ends are asked
// for; it is looked at without being taken, so that nextStop still finds it.
func exited(pid, tid int) bool {
	const look = unix.WEXITED | unix.WNOHANG | unix.WALL | unix.WNOWAIT
	var info stopInfo
	ask := func(flags uintptr) unix.Errno {
		_, _, e := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(tid), uintptr(unsafe.Pointer(&info)), flags, 0, 0)
		return e
	}
	if e := ask(look); e != 0 || info.pid == 0 || info.code > cldDumped {
		return e == unix.ECHILD
	}
	if pid != tid {
		ask(look &^ unix.WNOWAIT)
	}
	return true
}

// spins is how often the kernel is asked again at once before napping.
const spins = 40

// idle passes the time until the kernel has made progress. A nap beats yielding:
// when it ends, an urgent thread gets its processor back at once.
func idle(round int) {
	if round < spins {
		return
	}
	// A nap is long enough for the target to get somewhere on this processor, and
	// later ones are longer: when progress is slow, the target needs it.
	d := min(30*time.Microsecond+time.Duration(round)*100*time.Nanosecond, 100*time.Microsecond)
	nap := unix.Timespec{Nsec: int64(d)}
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0) // cut short by a signal is fine
}

// onThread runs f on an operating system thread of its own and waits for it.
// The thread ends with f: whatever f still traces then goes on untraced, which
// is also what makes a failure in the middle safe.
func onThread[T any](f func() T) <-chan T {
	ch := make(chan T, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			urgent()
			ch <- f()
			return // still locked: the runtime ends the thread
		}
		// The process's first thread would not end. Hold it while another
		// thread takes the work, so that the work cannot land here again.
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			urgent()
			ch <- f()
		}()
		<-started
		runtime.UnlockOSThread()
	}()
	return ch
}

// urgent gives the calling thread precedence over ordinary ones and precise
// naps, so that a target does not stand still while the agent waits for a
// processor. Both are lost with the thread. Where the kernel does not allow
// them, stops take longer and nothing else changes. (Real-time priority was
// slower: it keeps a target that is woken on the same processor from running.)
func urgent() {
	const highest = -20
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), highest)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}
