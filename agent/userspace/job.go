package userspace

import (
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch/image"
)

// action is what a job does with one process.
type action int

const (
	doApply action = iota
	doRevert
	doStatus
	doClean // take away an image that was mapped and never switched to
)

// retryFirst and retryMost bound the pause between two attempts at a busy process.
const (
	retryFirst = 2 * time.Millisecond
	retryMost  = 50 * time.Millisecond
)

// job is the work on one process. Attempts are independent of each other: each
// one looks at the process anew.
type job struct {
	engine *Engine
	patch  Patch
	proc   Process
	peers  []int // processes that might share its memory
	mapped uint64
}

// report is the outcome of one attempt.
type report struct {
	result Result
	mapped uint64 // state area of an image that this attempt mapped
	again  bool   // trying again later may help
}

// run makes attempts until one succeeds, fails for good, or patience ends.
func (j *job) run(ctx context.Context, what action) Result {
	deadline := time.Now().Add(j.engine.opts.Patience)
	pause := retryFirst
	var r report
	var stop, mapping time.Duration // of all attempts
	for try := 1; ; try++ {
		r = j.attempt(ctx, what)
		stop, mapping = stop+r.result.Stop, mapping+r.result.Map
		r.result.Tries, r.result.Stop, r.result.Map = try, stop, mapping
		if r.mapped != 0 {
			j.mapped = r.mapped
		}
		if !r.again || time.Now().Add(pause).After(deadline) || !wait(ctx, pause) {
			break
		}
		pause = min(pause+pause/2, retryMost)
	}
	if o := r.result.Outcome; what == doApply && j.mapped != 0 && o != Patched && o != Ended {
		j.clean(ctx)
	}
	return r.result
}

// clean takes away the image that this job mapped, which nothing uses. When that
// does not work now, the next attempt to apply finds the image and uses it.
func (j *job) clean(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for pause := retryFirst; pause < retryMost; pause *= 2 {
		if r := j.attempt(ctx, doClean); r.result.Outcome == "" || r.result.Outcome == Ended || !wait(ctx, pause) {
			return
		}
	}
}

// wait pauses and reports whether the context is still good.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt does the work once, on an operating system thread of its own. A
// process that keeps the thread waiting for too long is left alone with it.
func (j *job) attempt(ctx context.Context, what action) report {
	e := j.engine
	blank := report{result: Result{PID: j.proc.PID, Start: j.proc.Start, Command: j.proc.Command}}
	e.mu.Lock()
	full := e.stuck >= 2*maxStuck
	if !full {
		e.stuck++
	}
	e.mu.Unlock()
	if full {
		blank.result.Outcome = Failed
		blank.result.Reason = "too many other processes do not answer; it was not tried"
		return blank
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.Answer)
	defer cancel()
	a := attempt{job: *j, ctx: ctx, what: what, report: blank}
	done := onThread(func() report {
		defer e.unstick()
		a.do()
		return a.report
	})
	timer := time.NewTimer(e.opts.Answer)
	defer timer.Stop()
	select {
	case r := <-done:
		return r
	case <-timer.C:
		blank.result.Outcome = Failed
		blank.result.Reason = "it did not answer in time"
		return blank
	}
}

// attempt is one try at one process.
type attempt struct {
	job
	ctx    context.Context // this try's, checked before every step that changes something
	what   action
	report report
}

// do makes the attempt and turns its error into the report.
func (a *attempt) do() {
	r := &a.report.result
	err := a.work(r)
	var busy *busyError
	switch {
	case err == nil:
	case errors.As(err, &busy):
		a.report.again = true
		r.Outcome, r.Reason = Failed, "busy: "+busy.reason
	case errors.Is(err, errEnded):
		r.Outcome, r.Reason = Ended, "the process ended"
	case errors.Is(err, errExec), errors.Is(err, errNotMapped):
		r.Outcome, r.Reason = Ended, err.Error()
	case errors.Is(err, errTraced), errors.Is(err, errChild), errors.Is(err, errWide):
		r.Outcome, r.Reason = Skipped, err.Error()
	default:
		r.Outcome, r.Reason = Failed, err.Error()
	}
}

func (a *attempt) work(r *Result) error {
	p := &a.patch
	if a.proc.PID == unix.Getpid() {
		r.Outcome, r.Reason = Skipped, "it is the agent itself"
		return nil
	}
	h, err := pin(a.proc)
	if err != nil {
		return err
	}
	defer h.close()
	st, err := h.status()
	switch {
	case err != nil:
		return err
	case st.tracer != 0 && a.what != doStatus:
		return tracedBy(st.tracer)
	case st.parent == unix.Getpid() && !a.engine.opts.Children && a.what != doStatus:
		// The kernel reports a tracee's stops to every wait of its parent, so
		// one of us would miss what the other one took.
		return errChild
	}
	t, err := a.engine.locate(h, p.File.BuildID, a.proc.files)
	if err != nil {
		return err
	}
	if pid := t.sharer(a.peers); pid != 0 && a.what != doStatus {
		return &busyError{"it shares its memory with process " + strconv.Itoa(pid)}
	}
	var pl *plan
	switch a.what {
	case doApply:
		pl, err = t.planApply(p)
	case doRevert:
		pl, err = t.planRevert(p)
	case doStatus:
		pl, err = t.planStatus(p)
	case doClean:
		return a.clean(t, st)
	}
	if err != nil {
		return err
	}
	if pl.outcome != "" {
		r.Outcome, r.Reason = pl.outcome, pl.reason
		return nil
	}
	defer stayAwake()()
	keepAway(h)
	if pl.image != nil {
		if err := a.bringImage(t, pl, st); err != nil {
			return err
		}
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	r.Threads, r.Stop, err = newTracer(h).carryOut(t, pl, a.engine.opts.StopWait)
	if err != nil {
		return err
	}
	r.Outcome = Patched
	if a.what == doRevert {
		r.Outcome = Reverted
	} else {
		r.code = pl.carrier.spans()
	}
	return nil
}

// bringImage maps the image's pages by system calls of the target's own, each
// segment under its final protection from its first moment, and writes them
// while the target runs. One call takes the place and makes what is only read;
// every call costs the target time. The state area is written last: an image
// without it does not count.
func (a *attempt) bringImage(t *target, pl *plan, st status) error {
	g, err := gadget(t.h, t.maps)
	if err != nil {
		return err
	}
	c := pl.carrier
	calls := []call{mapCall(c.begin(), c.size(), protRead)}
	at := c.image
	for _, s := range c.segments {
		if s.Prot != image.ReadOnly {
			calls = append(calls, remapCall(at, uint64(s.Size), segmentProt(s.Prot)))
		}
		at += uint64(s.Size)
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	r := &a.report.result
	n := 0
	n, r.Map, err = newTracer(t.h).inject(g, calls, st, a.engine.opts.StopWait)
	if err != nil {
		if n > 0 {
			undo := unmapCall(c.begin(), c.size())
			if _, _, uerr := newTracer(t.h).inject(g, []call{undo}, st, a.engine.opts.StopWait); uerr != nil && uerr != errEnded {
				return errors.New(err.Error() + "; its pages stay behind unused (" + uerr.Error() + ")")
			}
		}
		return err
	}
	a.report.mapped = c.begin()
	if err = t.h.write(pl.image, c.image); err == nil {
		err = t.h.write(c.encode(), c.begin())
	}
	if err != nil && err != errEnded {
		return errors.New("the image cannot be written: " + err.Error())
	}
	return err
}

// clean unmaps the image that this job mapped and never switched to.
func (a *attempt) clean(t *target, st status) error {
	pr, err := t.look(&a.patch)
	if err != nil {
		return err
	}
	for _, c := range pr.all {
		if c.begin() != a.mapped || c == pr.active {
			continue
		}
		g, err := gadget(t.h, t.maps)
		if err != nil {
			return err
		}
		undo := unmapCall(c.begin(), c.size())
		_, _, err = newTracer(t.h).inject(g, []call{undo}, st, a.engine.opts.StopWait)
		return err
	}
	return nil
}
