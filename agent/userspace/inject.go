package userspace

import (
	"errors"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call that a thread of the target makes for the engine.
type call struct {
	nr   uint64
	args [6]uint64
	want int64 // what it must return
	what string
}

// mapCall maps anonymous pages at an address where nothing lies yet.
func mapCall(addr, size uint64, p prot) call {
	return pagesCall(addr, size, p, unix.MAP_FIXED_NOREPLACE)
}

// remapCall gives a part of what mapCall mapped another protection. It maps new
// pages over it: a process may be forbidden to make pages executable afterwards.
func remapCall(addr, size uint64, p prot) call {
	return pagesCall(addr, size, p, unix.MAP_FIXED)
}

func pagesCall(addr, size uint64, p prot, place uint64) call {
	flags := uint64(0)
	for _, f := range [...]struct {
		ours prot
		bit  uint64
	}{{protRead, unix.PROT_READ}, {protWrite, unix.PROT_WRITE}, {protExec, unix.PROT_EXEC}} {
		if p&f.ours != 0 {
			flags |= f.bit
		}
	}
	return call{
		nr:   unix.SYS_MMAP,
		args: [6]uint64{addr, size, flags, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | place, ^uint64(0), 0},
		want: int64(addr),
		what: "mapping the image's pages",
	}
}

func unmapCall(addr, size uint64) call {
	return call{nr: unix.SYS_MUNMAP, args: [6]uint64{addr, size}, what: "unmapping the image's pages"}
}

// gadget finds a system call instruction in the code that the kernel maps into
// every process. Only that one instruction is run, and no byte is changed.
func gadget(h *handle, ms []mapping) (uint64, error) {
	const maxVDSO = 64 << 10
	for i := range ms {
		m := &ms[i]
		if m.kind != kindVDSO || m.prot&protExec == 0 || m.end-m.start > maxVDSO {
			continue
		}
		code := make([]byte, m.end-m.start)
		if _, err := h.ReadAt(code, int64(m.start)); err != nil {
			return 0, err
		}
		if at := strings.Index(string(code), callInsn); at >= 0 {
			return m.start + uint64(at), nil
		}
	}
	return 0, errors.New("it has no vdso with a system call instruction")
}

// inject stops one thread and has it make the calls in their order, up to the
// first that does not return what it must. It returns how many did, and how
// long the thread stood still. When the process, whose status is given, has a
// system call filter, it is suspended for these calls only, never while the
// program runs code of its own.
func (t *tracer) inject(gadget uint64, calls []call, st status, wait time.Duration) (n int, stood time.Duration, err error) {
	tid, err := t.anyThread()
	if err != nil {
		return 0, 0, err
	}
	if err := t.seize(tid); err != nil {
		return 0, 0, err
	}
	if len(t.threads) == 0 {
		return 0, 0, errEnded
	}
	th := &t.threads[0]
	began := time.Now()
	defer func() {
		t.detach()
		stood = time.Since(began)
	}()
	if err := t.park(th, began.Add(wait)); err != nil {
		return 0, 0, err
	}
	if err := t.sameMemory(tid, gadget); err != nil {
		return 0, 0, err
	}
	var mask uint64
	if e := ptrace(ptraceGetSigmask, tid, kernelSigsetBytes, unsafe.Pointer(&mask)); e != 0 {
		return 0, 0, injectError("its signal mask cannot be read", e)
	}
	if e := ptraceValue(unix.PTRACE_SETOPTIONS, tid, baseOptions|optSuspendSeccomp); e != 0 && st.seccomp {
		return 0, 0, errSeccomp
	}
	// No handler of the program may run in between. SIGSYS stays open, because
	// the kernel would reset its handler rather than leave it blocked; so does
	// SIGTRAP when the thread is stepped.
	step := (mask|st.ignored)&signalBit(unix.SIGTRAP) == 0
	blocked := ^signalBit(unix.SIGSYS)
	if step {
		blocked &^= signalBit(unix.SIGTRAP)
	}
	if e := ptrace(ptraceSetSigmask, tid, kernelSigsetBytes, unsafe.Pointer(&blocked)); e != 0 {
		return 0, 0, injectError("its signal mask cannot be set", e)
	}
	for _, c := range calls {
		var got int64
		if got, err = t.run(th, gadget, c, step); err != nil {
			break
		}
		if got != c.want {
			err = callError(c, got)
			break
		}
		n++
	}
	if e := ptrace(ptraceSetSigmask, tid, kernelSigsetBytes, unsafe.Pointer(&mask)); e != 0 && err == nil {
		err = injectError("its signal mask cannot be restored", e)
	}
	if rerr := t.resume(th, step); rerr != nil && err == nil {
		err = rerr
	}
	return n, 0, err
}

// sameMemory makes sure that the stopped thread still runs on the memory that
// was examined, and not on a new program's: the examined memory must still be
// there, and the thread must have the instruction that it is about to borrow.
func (t *tracer) sameMemory(tid int, gadget uint64) error {
	var examined, now [len(callInsn)]byte
	if _, err := t.h.ReadAt(examined[:], int64(gadget)); err != nil {
		return err
	}
	n, err := readOther(tid, gadget, now[:])
	if err != nil {
		return err
	}
	if n != len(now) || string(now[:]) != callInsn || examined != now {
		return errExec
	}
	return nil
}

// anyThread returns the first thread of the process, or another one when the
// first has ended already.
func (t *tracer) anyThread() (int, error) {
	if st, err := t.status(t.h.pid); err != nil || !st.zombie {
		return t.h.pid, err
	}
	list, err := numbers(t.h.tasks, t.dirents, t.list[:0], maxThreads)
	if err != nil {
		return 0, err
	}
	for _, tid := range list {
		if tid != t.h.pid {
			return tid, nil
		}
	}
	return 0, errEnded
}

// faults are the signals by which the kernel reports that an instruction failed.
var faults = signalBit(unix.SIGSEGV) | signalBit(unix.SIGBUS) | signalBit(unix.SIGILL) | signalBit(unix.SIGFPE) | signalBit(unix.SIGTRAP)

// signalBit is a signal in a mask of the kernel's.
func signalBit(s unix.Signal) uint64 { return 1 << (s - 1) }

// park stops the thread at a point where its registers may be borrowed.
func (t *tracer) park(th *thread, deadline time.Time) error {
	for range maxRounds {
		if e := ptraceValue(unix.PTRACE_INTERRUPT, th.tid, 0); e != 0 && e != unix.ESRCH {
			return injectError("it cannot be stopped", e)
		}
		th.stopped = false
		if err := t.await(deadline); err != nil {
			return err
		}
		if !th.stopped {
			return errEnded
		}
		if th.event {
			if err := t.load(); err != nil {
				return err
			}
			if !t.inRestartable(th) {
				return nil
			}
			th.signal = 0
		}
		// A signal is being delivered, or the thread is inside a restartable
		// sequence, which the kernel would forget: let it go on a little.
		if e := ptraceValue(unix.PTRACE_CONT, th.tid, uintptr(th.signal)); e != 0 {
			return injectError("it cannot be let go on", e)
		}
		th.stopped, th.signal = false, 0
	}
	return &busyError{"it is in the middle of signals or restartable sequences all the time"}
}

// inRestartable reports whether the thread may be inside a restartable sequence
// (rseq), in which case the kernel must see its own program counter next.
func (t *tracer) inRestartable(th *thread) bool {
	var conf struct {
		addr      uint64
		size      uint32
		signature uint32
		flags     uint32
		_         uint32
	}
	if ptrace(ptraceGetRseq, th.tid, unsafe.Sizeof(conf), unsafe.Pointer(&conf)) != 0 || conf.addr == 0 {
		return false // none registered, or a kernel that has no way to ask
	}
	var section [8]byte
	if _, err := t.h.ReadAt(section[:], int64(conf.addr+rseqCSOffset)); err != nil {
		return false
	}
	return section != [8]byte{}
}

// run has the stopped thread make one system call and returns its result. A
// thread that is stepped stops once for it, else twice: in front of the call and
// behind it. Every stop costs more than the call itself. The kernel announces a
// step by SIGTRAP, which it would force on a thread that blocks or ignores it,
// at the expense of what the program has set for it: step must be false then.
func (t *tracer) run(th *thread, gadget uint64, c call, step bool) (int64, error) {
	r := th.regs
	r.call(gadget, c.nr, c.args)
	if e := setRegisters(th.tid, &r); e != 0 {
		return 0, injectError("its registers cannot be set", e)
	}
	request := unix.PTRACE_SYSCALL
	if step {
		request = unix.PTRACE_SINGLESTEP
	}
	deliver := 0
	for entered := step; ; {
		if e := ptraceValue(request, th.tid, uintptr(deliver)); e != 0 {
			return 0, injectError("it cannot make a call", e)
		}
		deliver = 0
		sig, event, err := t.await1(th)
		switch {
		case err != nil:
			return 0, err
		case event == eventExec:
			return 0, errExec
		case event != 0:
		case sig == syscallStopSignal && !entered:
			entered = true
		case sig == syscallStopSignal, sig == int(unix.SIGTRAP) && step:
			if e := getRegisters(th.tid, &r); e != 0 {
				return 0, injectError("its registers cannot be read", e)
			}
			switch r.pc() {
			case gadget + uint64(len(callInsn)):
				return r.result(), nil
			case gadget: // somebody sent it a SIGTRAP: it gets it afterwards
				th.signal = sig
			default:
				return 0, errors.New("it was not stopped behind the system call")
			}
		case sig == int(unix.SIGSYS):
			return 0, errors.New("it intercepts its own system calls")
		case faults&signalBit(unix.Signal(sig)) != 0:
			return 0, errors.New("the system call instruction cannot be run") // never the program's own fault
		default:
			deliver = sig // SIGSTOP, which cannot be blocked
		}
	}
}

// resume gives the thread its own registers back, in a stop from which the
// kernel restarts a system call that the first stop broke off: the stop behind a
// step is one, that behind a call is not.
func (t *tracer) resume(th *thread, stepped bool) error {
	if e := setRegisters(th.tid, &th.regs); e != 0 {
		return injectError("its registers cannot be restored", e)
	}
	if e := ptraceValue(unix.PTRACE_SETOPTIONS, th.tid, baseOptions); e != 0 {
		return injectError("its system call filter cannot be resumed", e)
	}
	if stepped {
		th.event = th.signal == 0
		return nil
	}
	if e := ptraceValue(unix.PTRACE_INTERRUPT, th.tid, 0); e != 0 {
		return injectError("it cannot be stopped", e)
	}
	if e := ptraceValue(unix.PTRACE_CONT, th.tid, 0); e != 0 {
		return injectError("it cannot be let go on", e)
	}
	sig, event, err := t.await1(th)
	switch {
	case err != nil:
		return err
	case event == eventStop:
		th.event = true
	default:
		th.event, th.signal = false, sig
	}
	return nil
}

// await1 waits for the next stop of the one thread, which has been let go on
// with borrowed registers: there is no giving up before it has them back.
func (t *tracer) await1(th *thread) (sig, event int, err error) {
	th.stopped = false
	for round := 0; ; round++ {
		tid, status := nextStop()
		if tid == th.tid {
			th.stopped = true
			return status & 0xff, status >> 8, nil
		}
		if round%64 == 63 && exited(t.h.pid, th.tid) {
			return 0, 0, errEnded
		}
		idle(round)
	}
}

func injectError(what string, e unix.Errno) error {
	if e == unix.ESRCH {
		return errEnded
	}
	return errors.New(what + ": " + e.Error())
}

// callError says what the kernel answered to a call.
func callError(c call, got int64) error {
	if got < 0 && got > -4096 {
		e := unix.Errno(-got)
		text := c.what + " failed: " + e.Error()
		switch e {
		case unix.EEXIST:
			return &busyError{text} // another thread mapped something there: look again
		case unix.EACCES, unix.EPERM:
			text += " (a security module does not allow it new code)"
		case unix.ENOMEM, unix.EAGAIN:
			text += " (one of its memory limits is reached)"
		}
		return errors.New(text)
	}
	return errors.New(c.what + " failed: the kernel chose another place")
}
