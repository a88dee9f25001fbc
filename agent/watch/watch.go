// Package watch learns from the kernel's events that a process may have come to
// map a library, and how processes die. Each event leads to a few looks at that
// one process; a source that is missing, or that lost events, leads to a scan.
//
// It reads bytes of the kernel and keeps time. It must not patch or decide
// anything: what a look finds, and what a death means, is for others. Decoding
// (decode.go) and planning (queue.go) are pure.
package watch

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/patch"
)

// Watcher connects events with those who act. All fields must be set before Run.
type Watcher struct {
	Guard     *guard.Guard
	Libraries func() (files []userspace.Library, inForce []patch.BuildID) // whose opening matters; asked every second
	Look      func(ctx context.Context, pid int)                          // patches what one process lacks
	Judge     func(ctx context.Context)                                   // acts when Guard found a patch guilty
	Scan      func()                                                      // asks for a look at all processes, soon; must not block
	Log       func(string)
}

// Sizes of reads, and how many are made before other work has its turn.
const (
	maxRecord = 8 << 10 // bytes of one record of the kernel's log
	maxOpens  = 16 << 10
	readsEach = 256
	beat      = time.Second

	renewEvery = time.Minute
	maxHeld    = 256 // pidfds
)

// file is the kernel's name of a marked file.
type file struct{ device, inode uint64 }

// running is one Run.
type running struct {
	*Watcher
	procs, opens, log int // -1 when not available
	end               int // readable once Run has to end
	marked            map[file]patch.BuildID
	renewed           time.Time   // when all marks were set again
	held              map[int]int // pidfds of processes on probation, when no event tells of their end
	unmarkable        bool        // that some file cannot be marked was said
	looks             looks
	scanned           time.Time
	lost              bool // events were lost since
	buf               []byte
}

// Run watches until ctx ends. It needs no source: without any it only acts on
// verdicts.
func (w *Watcher) Run(ctx context.Context) {
	r := running{Watcher: w, marked: map[file]patch.BuildID{}, held: map[int]int{}, renewed: time.Now(), buf: make([]byte, maxOpens)}
	r.lost = true // whatever happened before the sources were open
	r.procs = r.open("processes that start are found within a minute instead of at once", openProcs)
	r.opens = r.open("libraries that are loaded later are found within a minute instead of at once", openOpens)
	r.log = r.open("a process that dies of a patch is noticed by its end alone", openLog)
	w.Guard.ReadsLog(r.log >= 0)
	defer r.close()
	var end [2]int
	if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
		r.end = -1 // the end is noticed at the next beat
	} else {
		r.end = end[0]
		defer unix.Close(end[0])
		tell := context.AfterFunc(ctx, func() { unix.Close(end[1]) })
		defer func() {
			if tell() {
				unix.Close(end[1])
			}
		}()
	}
	pids, worker := make(chan int), make(chan struct{})
	go func() { // looks take time, and events must not wait for them
		defer close(worker)
		for {
			select {
			case <-ctx.Done():
				return
			case pid := <-pids:
				w.Look(ctx, pid)
			case <-w.Guard.Convicted():
				w.Judge(ctx)
			}
		}
	}()
	defer func() { <-worker }()
	r.loop(ctx, pids)
}

// open opens a source, and says once what is lost without it.
func (r *running) open(without string, open func() (int, error)) int {
	fd, err := open()
	if err != nil {
		r.Log(without + ": " + err.Error())
		return -1
	}
	return fd
}

func (r *running) close() {
	r.Guard.ReadsLog(false)
	for _, fd := range []int{r.procs, r.opens, r.log} {
		if fd >= 0 {
			unix.Close(fd) // read only: nothing can be lost
		}
	}
	for _, fd := range r.held {
		unix.Close(fd)
	}
}

func (r *running) loop(ctx context.Context, pids chan<- int) {
	for next := time.Now(); ctx.Err() == nil; {
		now := time.Now()
		if !now.Before(next) {
			r.mark()
			if r.procs < 0 {
				r.visit()
			}
			next = now.Add(beat)
		}
		if r.lost && time.Since(r.scanned) > scanEvery {
			r.lost, r.scanned = false, time.Now()
			r.Scan()
		}
		r.offer(ctx, now, pids)
		wait := beat
		if d, ok := r.looks.wait(now); ok {
			wait = min(wait, max(d, time.Millisecond))
		}
		fds := []unix.PollFd{{Fd: int32(r.log), Events: unix.POLLIN}, {Fd: int32(r.procs), Events: unix.POLLIN}, {Fd: int32(r.opens), Events: unix.POLLIN}, {Fd: int32(r.end), Events: unix.POLLIN}}
		if _, err := poll(fds, wait); err != nil {
			r.Log("waiting for events: " + err.Error() + "; processes are looked at every minute")
			<-ctx.Done()
			return
		}
		// The log first: it says where a death was that the others tell of.
		r.readLog(fds[0].Revents)
		r.readProcs(fds[1].Revents)
		r.readOpens(fds[2].Revents)
	}
}

// offer hands a process to the worker, if it is idle.
func (r *running) offer(ctx context.Context, now time.Time, pids chan<- int) {
	before := r.looks.next
	pid, ok := r.looks.take(now)
	if !ok {
		return
	}
	select {
	case pids <- pid:
	case <-ctx.Done():
	default: // busy: the same look again, a little later
		r.looks.next = before
		r.looks.retry(pid, now)
	}
}

func (r *running) happened(pid int) {
	if pid == os.Getpid() {
		return
	}
	if !r.looks.add(pid, time.Now()) {
		r.lost = true
	}
}

func (r *running) readProcs(events int16) {
	for range readsEach {
		if events == 0 {
			return
		}
		e, some, err := receive(r.procs, r.buf[:maxMessage])
		switch {
		case err == unix.ENOBUFS:
			r.lost = true
			r.visit()
			continue
		case err != nil:
			r.Log("the kernel's process events ended: " + err.Error() + "; processes that start are found within a minute")
			unix.Close(r.procs)
			r.procs = -1
			return
		case !some:
			return
		}
		switch e.what {
		case procFork:
			if e.child > 0 {
				r.Guard.Forked(e.pid, e.child)
			}
		case procExec:
			r.Guard.Left(e.pid)
			r.happened(e.pid)
		case procExit:
			r.Guard.Exited(guard.Death{PID: e.pid, Signal: e.signal}, e.thread)
			if e.thread == e.pid {
				r.looks.drop(e.pid)
			}
		}
	}
}

func (r *running) readOpens(events int16) {
	if events == 0 {
		return
	}
	n, err := unix.Read(r.opens, r.buf)
	if err == unix.EINTR || err == unix.EAGAIN {
		return
	}
	pids, lost, ok := decodeOpens(r.buf[:max(n, 0)])
	for _, pid := range pids {
		r.happened(pid)
	}
	r.lost = r.lost || lost
	if err != nil || !ok {
		if err == nil {
			err = errors.New("a record cannot be read")
		}
		r.Log("the kernel's file events ended: " + err.Error() + "; libraries that are loaded later are found within a minute")
		unix.Close(r.opens)
		r.opens = -1
	}
}

func (r *running) readLog(events int16) {
	for range readsEach {
		if events == 0 {
			return
		}
		n, err := unix.Read(r.log, r.buf[:maxRecord])
		switch {
		case err == unix.EAGAIN:
			return
		case err == unix.EINTR, err == unix.EPIPE, err == unix.EINVAL: // overwritten before it was read, or too long
			continue
		case err != nil:
			r.Log("the kernel's log ended: " + err.Error() + "; a process that dies of a patch is noticed by its end alone")
			r.Guard.ReadsLog(false)
			unix.Close(r.log)
			r.log = -1
			return
		}
		if thread, ip, ok := parseFault(string(r.buf[:n])); ok {
			r.Guard.Fault(thread, ip)
		}
	}
}

// mark brings the marks to the files that matter now. A file that no process
// maps at the moment keeps its mark as long as its patch is in force.
func (r *running) mark() {
	if r.opens < 0 {
		return
	}
	libraries, inForce := r.Libraries()
	for _, id := range r.marked {
		if slices.Contains(inForce, id) {
			continue
		}
		// Taking one mark off needs its file, which may be gone: all go, and those
		// that are still needed come back below.
		if err := unix.FanotifyMark(r.opens, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/"); err == nil {
			clear(r.marked)
		}
		break
	}
	// The kernel may drop a mark when it needs memory.
	renew := time.Since(r.renewed) > renewEvery
	if renew {
		r.renewed = time.Now()
	}
	for _, l := range libraries {
		key := file{l.Device, l.Inode}
		if _, has := r.marked[key]; has && !renew || !slices.Contains(inForce, l.BuildID) {
			continue
		}
		fd, err := l.Open()
		if err != nil {
			continue // the process that had it ended: another one has it, or nobody
		}
		err = mark(r.opens, fd)
		unix.Close(fd)
		r.marked[key] = l.BuildID // once is enough to try
		if err != nil && !r.unmarkable {
			r.unmarkable = true
			r.Log("a library's file system tells nobody who opens it (" + err.Error() + "): loading it later is found within a minute")
		}
	}
}

// visit finds out which processes on probation ended without any event.
func (r *running) visit() {
	for _, pid := range r.Guard.Watched() {
		fd, held := r.held[pid]
		if !held {
			if len(r.held) >= maxHeld {
				continue
			}
			var err error
			if fd, err = unix.PidfdOpen(pid, 0); err == unix.ESRCH {
				r.Guard.Exited(guard.Death{PID: pid, Unsure: true}, pid)
				continue
			} else if err != nil {
				continue // too many files are open: later
			}
			r.held[pid] = fd
		}
		if n, err := poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err == nil && n > 0 {
			signal, ok := userspace.Killer(pid, fd)
			r.Guard.Exited(guard.Death{PID: pid, Signal: signal, Unsure: !ok}, pid)
		}
	}
	watched := r.Guard.Watched()
	for pid, fd := range r.held {
		if !slices.Contains(watched, pid) {
			unix.Close(fd)
			delete(r.held, pid)
		}
	}
}
