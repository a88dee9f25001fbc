package userspace

import (
	"errors"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRounds bounds how often a process may surprise the tracer with new
// threads, signals and the like before it is called busy.
const maxRounds = 256

var (
	errTraced  = errors.New("another program, such as a debugger, traces it")
	errChild   = errors.New("the agent itself started it, for a short time")
	errExec    = errors.New("it started another program meanwhile")
	errWide    = errors.New("it runs 32-bit code, which is not supported")
	errSeccomp = errors.New("it has a system call filter and the agent may not suspend it; the agent needs CAP_SYS_ADMIN and must not be filtered itself")
)

// busyError says why a process cannot be switched just now; trying again later
// may succeed. Nothing was changed.
type busyError struct{ reason string }

func (e *busyError) Error() string { return e.reason }

// thread is one thread of the target.
type thread struct {
	tid     int
	stopped bool
	dead    bool // it ended but is still counted
	event   bool // stopped by the tracer, not in the middle of a signal's delivery
	loaded  bool // regs are its registers
	signal  int  // to deliver when it goes on
	regs    registers
}

// tracer holds the threads of one process. All its methods must be called on
// the one thread that made it.
type tracer struct {
	h       *handle
	threads []thread
	index   map[int]int // tid -> place in threads
	list    []int       // scratch
	dirents []byte      // scratch
}

func newTracer(h *handle) *tracer {
	return &tracer{
		h:       h,
		threads: make([]thread, 0, 128),
		index:   make(map[int]int, 128),
		list:    make([]int, 0, 128),
		dirents: make([]byte, direntBytes),
	}
}

// seize starts tracing a thread without stopping it.
func (t *tracer) seize(tid int) error {
	switch e := ptraceValue(unix.PTRACE_SEIZE, tid, baseOptions); e {
	case 0:
		t.index[tid] = len(t.threads)
		t.threads = append(t.threads, thread{tid: tid})
	case unix.ESRCH: // it ended
	case unix.EPERM:
		st, err := t.status(tid)
		switch {
		case err == errEnded:
			return nil
		case err != nil:
			return err
		case !st.zombie:
			return tracedBy(st.tracer)
		}
		t.index[tid] = len(t.threads)
		t.threads = append(t.threads, thread{tid: tid, dead: true})
	default:
		return errors.New("it cannot be traced: " + e.Error())
	}
	return nil
}

// status reads what the kernel says about one thread. The first thread of a
// process that has ended stays listed, as a zombie, until the last one ends.
func (t *tracer) status(tid int) (status, error) {
	text, err := t.h.text("task/"+strconv.Itoa(tid)+"/status", make([]byte, 4096), maxStatusBytes)
	if err != nil {
		return status{}, err
	}
	return parseStatus(string(text))
}

// tracedBy is the error for a target that has a tracer already. It is our own
// for a moment after an attempt in which not all threads would stop.
func tracedBy(tid int) error {
	if tid == 0 || unix.Faccessat(unix.AT_FDCWD, "/proc/self/task/"+strconv.Itoa(tid), unix.F_OK, 0) == nil {
		return &busyError{"the attempt before has not let go of it yet"}
	}
	return errTraced
}

// seizeAll traces all threads that are not traced yet and returns how many were new.
func (t *tracer) seizeAll() (int, error) {
	var err error
	if t.list, err = numbers(t.h.tasks, t.dirents, t.list[:0], maxThreads); err != nil {
		return 0, err
	}
	before := len(t.threads)
	for _, tid := range t.list {
		if _, known := t.index[tid]; known {
			continue
		}
		if err := t.seize(tid); err != nil {
			return 0, err
		}
	}
	return len(t.threads) - before, nil
}

// seizeRunning traces the whole process while it runs. Threads that are born
// meanwhile are caught by stop.
func (t *tracer) seizeRunning() error {
	for range 4 {
		n, err := t.seizeAll()
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}

// stop stops every thread, those born meanwhile included, within wait. On any
// error the caller must detach, and end this OS thread.
func (t *tracer) stop(wait time.Duration) error {
	deadline := time.Now().Add(wait)
	from := 0
	for range maxRounds {
		for i := from; i < len(t.threads); i++ {
			if th := &t.threads[i]; !th.dead {
				// ESRCH: it has stopped already, or it ended; the wait tells.
				if e := ptraceValue(unix.PTRACE_INTERRUPT, th.tid, 0); e != 0 && e != unix.ESRCH {
					return errors.New("it cannot be stopped: " + e.Error())
				}
			}
		}
		if err := t.await(deadline); err != nil {
			return err
		}
		// Only a running thread of the process can make another one.
		if t.counted() {
			return nil
		}
		from = len(t.threads)
		n, err := t.seizeAll()
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
	return &busyError{"it starts threads faster than they can be stopped"}
}

// counted reports whether the kernel counts as many threads as are known, which
// is quicker to ask than their list.
func (t *tracer) counted() bool {
	var st unix.Stat_t
	if err := unix.Fstat(t.h.tasks, &st); err != nil {
		return false
	}
	n := 2 // links that a folder has by itself
	for i := range t.threads {
		if t.threads[i].stopped || t.threads[i].dead {
			n++
		}
	}
	return uint64(st.Nlink) == uint64(n)
}

// await waits until every traced thread has stopped or ended.
func (t *tracer) await(deadline time.Time) error {
	missing := 0
	for i := range t.threads {
		if th := &t.threads[i]; !th.stopped && !th.dead {
			missing++
		}
	}
	for round := 0; missing > 0; round++ {
		tid, status := nextStop()
		if tid == 0 {
			if round%64 == 63 {
				missing -= t.bury()
				if time.Now().After(deadline) && missing > 0 {
					return &busyError{strconv.Itoa(missing) + " of its threads did not stop in time (the kernel is busy on their behalf)"}
				}
			}
			idle(round)
			continue
		}
		i, known := t.index[tid]
		if !known || t.threads[i].stopped {
			continue
		}
		missing--
		t.threads[i].took(status)
		if status>>8 == eventExec {
			return errExec
		}
	}
	return nil
}

// bury takes note of threads that ended instead of stopping.
func (t *tracer) bury() (n int) {
	for i := 0; i < len(t.threads); i++ {
		th := &t.threads[i]
		if th.stopped || th.dead || !exited(t.h.pid, th.tid) {
			continue
		}
		n++
		if th.tid == t.h.pid {
			th.dead = true // still counted
			continue
		}
		delete(t.index, th.tid)
		last := len(t.threads) - 1
		t.threads[i] = t.threads[last]
		t.threads = t.threads[:last]
		if i < last {
			t.index[t.threads[i].tid] = i
			i--
		}
	}
	return n
}

// alive counts the stopped threads.
func (t *tracer) alive() (n int) {
	for i := range t.threads {
		if t.threads[i].stopped {
			n++
		}
	}
	return n
}

// load reads the registers of all stopped threads.
func (t *tracer) load() error {
	for i := range t.threads {
		th := &t.threads[i]
		if !th.stopped {
			continue
		}
		if e := getRegisters(th.tid, &th.regs); e != 0 {
			if e == unix.ESRCH {
				return errEnded // killed in the stop
			}
			return errors.New("its registers cannot be read: " + e.Error())
		}
		th.loaded = true
		if !th.regs.wide() {
			return errWide
		}
	}
	return nil
}

// lateWait is how long threads that were asked to stop and have not are waited
// for, to let them go properly. They only need a processor to get there.
const lateWait = 5 * time.Second

// detach lets all threads go on as if nothing had been: first those that are
// stopped, then the others as they stop. Ending this OS thread would let go of
// them too, but a system call that the request to stop broke off would then end
// with an error that the program sees.
func (t *tracer) detach() {
	late := 0
	for i := range t.threads {
		th := &t.threads[i]
		switch {
		case th.stopped:
			th.release()
		case !th.dead:
			// ESRCH: it has stopped meanwhile, or it ended; the wait tells.
			ptraceValue(unix.PTRACE_INTERRUPT, th.tid, 0)
			late++
		}
	}
	deadline := time.Now().Add(lateWait)
	for round := 0; late > 0; round++ {
		tid, status := nextStop()
		if tid == 0 {
			if round%64 == 63 {
				late -= t.bury()
				if t.deep() || time.Now().After(deadline) {
					break
				}
			}
			idle(round)
			continue
		}
		if i, known := t.index[tid]; known && !t.threads[i].dead {
			th := &t.threads[i]
			th.took(status)
			th.release()
			late--
		}
	}
	t.threads = t.threads[:0]
	clear(t.index)
}

// deep reports whether all threads that are not stopped wait in the kernel for
// something that no stop breaks off: it ends as if nothing had been.
func (t *tracer) deep() bool {
	for i := range t.threads {
		if th := &t.threads[i]; !th.stopped && !th.dead {
			if st, err := t.status(th.tid); err == nil && !st.deep {
				return false
			}
		}
	}
	return true
}

// took notes that the thread has stopped, and how.
func (th *thread) took(status int) {
	th.stopped, th.loaded = true, false
	if status>>8 == eventStop {
		th.event, th.signal = true, 0
		return
	}
	th.event, th.signal = false, status&0xff
	if status>>8 == eventExec {
		th.signal = 0
	}
}

// release lets a stopped thread go on untraced.
func (th *thread) release() {
	th.mend()
	ptraceValue(unix.PTRACE_DETACH, th.tid, uintptr(th.signal)) // ESRCH: it was killed meanwhile
	th.stopped, th.dead = false, true
}

// mend hides from the program that the stop broke off a system call which the
// kernel does not restart by itself. A pending signal would have broken it off
// anyway, and the program must see that.
func (th *thread) mend() {
	if !th.event || !th.loaded && getRegisters(th.tid, &th.regs) != 0 {
		return
	}
	if !th.regs.interrupted() || th.pendingSignal() {
		return
	}
	r := th.regs
	r.restart()
	setRegisters(th.tid, &r) // ESRCH: it was killed meanwhile
}

// pendingSignal reports whether a signal that the thread does not block waits.
func (th *thread) pendingSignal() bool {
	var mask uint64
	if ptrace(ptraceGetSigmask, th.tid, kernelSigsetBytes, unsafe.Pointer(&mask)) != 0 {
		return true
	}
	for _, flags := range [...]uint32{0, peekShared} {
		// struct ptrace_peeksiginfo_args
		args := struct {
			off   uint64
			flags uint32
			nr    int32
		}{flags: flags, nr: peekSignals}
		var infos [peekSignals][kernelSiginfoBytes]byte
		n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptracePeekSiginfo, uintptr(th.tid),
			uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos)), 0, 0)
		if e != 0 || n >= peekSignals {
			return true
		}
		for _, info := range infos[:n] {
			if sig := info[0]; sig >= 1 && sig <= 64 && mask&(1<<(sig-1)) == 0 {
				return true
			}
		}
	}
	return false
}
