package userspace

import (
	"errors"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stackChunk is how much of a stack is read at a time.
const stackChunk = 64 << 10

// scratch is memory that is made before the stop, so that nothing has to be
// allocated while the target stands still.
type scratch struct {
	stack  []byte
	sites  []jump
	stacks []span // of one thread
}

func newScratch(pl *plan) *scratch {
	return &scratch{stack: make([]byte, stackChunk), sites: make([]jump, len(pl.writes)), stacks: make([]span, 0, maxStacks)}
}

// carryOut stops all threads of the target, checks that none of them is in code
// that is about to change, and changes all of it or nothing. It returns how
// many threads there were and how long they stood still.
func (t *tracer) carryOut(tg *target, pl *plan, wait time.Duration) (threads int, stood time.Duration, err error) {
	sc := newScratch(pl)
	if err := t.seizeRunning(); err != nil {
		t.detach()
		return 0, 0, err
	}
	began := time.Now()
	defer func() {
		t.detach()
		stood = time.Since(began)
	}()
	if err := t.stop(wait); err != nil {
		return 0, 0, err
	}
	if threads = t.alive(); threads == 0 {
		return 0, 0, errEnded
	}
	if err := t.load(); err != nil {
		return threads, 0, err
	}
	for i := range t.threads {
		if th := &t.threads[i]; th.stopped {
			if err := t.outside(tg, pl, th, sc); err != nil {
				return threads, 0, err
			}
		}
	}
	return threads, 0, t.rewrite(pl, sc)
}

// maxStacks bounds how many stacks one thread is taken to have: its own, and
// those on which signal handlers run.
const maxStacks = 4

// outside returns nil when the thread is not in the plan's code: neither its
// program counter nor any word of its stacks points into it. A word that only
// looks like a return address makes the process busy, never broken.
func (t *tracer) outside(tg *target, pl *plan, th *thread, sc *scratch) error {
	if inSpans(pl.spans, th.regs.pc()) {
		return &busyError{"a thread is running in a function that is to be changed"}
	}
	low := th.regs.sp() &^ 7
	m := find(tg.maps, low)
	if m == nil {
		// The thread was born, or its stack grew, after the map was read.
		ms, err := tg.h.mappings(make([]byte, 64<<10), nil)
		if err != nil {
			return err
		}
		tg.maps = ms
		if m = find(ms, low); m == nil {
			return &busyError{"a thread has no stack"}
		}
	}
	sc.stacks = append(sc.stacks[:0], span{low, m.end})
	for i := 0; i < len(sc.stacks); i++ {
		if err := stackOutside(tg, pl, th.tid, sc.stacks[i], sc); err != nil {
			return err
		}
	}
	return nil
}

// stackOutside looks through one stack, and notes in sc the stack that a signal
// handler on this one interrupted.
func stackOutside(tg *target, pl *plan, tid int, stack span, sc *scratch) error {
	if stack.to-stack.from > maxStackBytes {
		return &busyError{"a thread's stack is too large to be looked through"}
	}
	var before [frameSP]uint64 // the words in front of the chunk
	for low := stack.from; low < stack.to; {
		n, err := readOther(tid, low, sc.stack[:min(stackChunk, stack.to-low)])
		if err != nil {
			return err
		}
		if n &^= 7; n == 0 {
			break // the mapping has become shorter
		}
		for i := range n / 8 {
			w := word(sc.stack, i)
			if inSpans(pl.spans, w) {
				return &busyError{"a function that is to be changed is on a thread's stack"}
			}
			if w == frameMark {
				sp := uint64(0)
				if i < frameSP {
					sp = before[i]
				} else {
					sp = word(sc.stack, i-frameSP)
				}
				if err := sc.interrupted(tg, sp&^7); err != nil {
					return err
				}
			}
		}
		for i := range before {
			if at := n/8 - frameSP + i; at >= 0 {
				before[i] = word(sc.stack, at)
			}
		}
		low += uint64(n)
	}
	return nil
}

// interrupted adds the stack at sp to those that are looked through, unless it
// is one of them.
func (sc *scratch) interrupted(tg *target, sp uint64) error {
	m := find(tg.maps, sp)
	if m == nil {
		return nil // not the stack pointer of anything
	}
	end := m.end
	for _, s := range sc.stacks {
		if s.to == m.end {
			if sp >= s.from {
				return nil
			}
			end = min(end, s.from)
		}
	}
	if len(sc.stacks) == maxStacks {
		return &busyError{"a thread has more stacks than are looked through"}
	}
	sc.stacks = append(sc.stacks, span{sp, end})
	return nil
}

// inSpans reports whether addr lies in one of the spans.
func inSpans(spans []span, addr uint64) bool {
	if len(spans) == 0 || addr < spans[0].from || addr >= spans[len(spans)-1].to {
		return false
	}
	lo, hi := 0, len(spans)
	for lo < hi {
		if mid := (lo + hi) / 2; spans[mid].to <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(spans) && spans[lo].from <= addr
}

// readOther reads the memory that a stopped thread runs on now. n is 0 when
// there is nothing at the address.
func readOther(tid int, at uint64, b []byte) (n int, err error) {
	local := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	remote := unix.RemoteIovec{Base: uintptr(at), Len: len(b)}
	got, _, e := unix.RawSyscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1,
		uintptr(unsafe.Pointer(&remote)), 1, 0)
	switch e {
	case 0:
		return int(got), nil
	case unix.EFAULT:
		return 0, nil
	}
	return 0, injectError("its memory cannot be read", e)
}

// rewrite writes all sites, or none. Old bytes are compared and new ones read
// back through the memory that the stopped threads run on, while the writing
// goes to the memory that was examined before: a process that has swapped its
// memory in between (by exec) cannot be changed by mistake.
func (t *tracer) rewrite(pl *plan, sc *scratch) error {
	tid := 0
	for i := range t.threads {
		if t.threads[i].stopped {
			tid = t.threads[i].tid
			break
		}
	}
	if err := readSites(tid, pl.writes, sc.sites); err != nil {
		return err
	}
	for i := range pl.writes {
		if sc.sites[i] != pl.writes[i].old {
			return &refusal{"the first bytes of the function " + pl.writes[i].name + " changed at the last moment"}
		}
	}
	done, err := 0, error(nil)
	for ; done < len(pl.writes) && err == nil; done++ {
		err = t.h.write(pl.writes[done].new[:], pl.writes[done].at)
	}
	if err == nil {
		if err = readSites(tid, pl.writes, sc.sites); err == nil {
			for i := range pl.writes {
				if sc.sites[i] != pl.writes[i].new {
					err = errExec
					break
				}
			}
		}
	}
	if err == nil {
		return nil
	}
	for i := done - 1; i >= 0; i-- {
		if undo := t.h.write(pl.writes[i].old[:], pl.writes[i].at); undo != nil && undo != errEnded && !t.h.ended(0) {
			return errors.New("writing its code failed (" + err.Error() + "), and so did putting back " +
				strconv.Itoa(i+1) + " functions (" + undo.Error() + "); restart the process")
		}
	}
	if err == errEnded || err == errExec {
		return err
	}
	return errors.New("writing its code failed: " + err.Error())
}
