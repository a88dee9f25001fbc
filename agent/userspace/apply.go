package userspace

import (
	"context"
	"strconv"
	"time"
)

// maxPasses bounds how often processes that appeared meanwhile are looked for.
const maxPasses = 4

// Apply switches p on in every process that maps the library. The first process
// that takes the patch is watched for a while before the others follow; when it
// ends in that time, one more is tried, and when that ends, too, the rest is
// left alone. Processes that started meanwhile are included. The error is for
// the whole: the patch or the machine is not fit, or ctx ended; results that
// exist by then are returned with it.
func (e *Engine) Apply(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doApply)
}

// Revert switches p off in every process in which it is on. Its image stays
// mapped, because the program may hold pointers into it, and is used again when
// p is applied again.
func (e *Engine) Revert(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doRevert)
}

// Status reads from every process that maps the library what is on in it. It
// changes nothing and stops nobody.
func (e *Engine) Status(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doStatus)
}

func (e *Engine) all(ctx context.Context, p Patch, what action) ([]Result, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var results []Result
	looked := make(map[int]bool) // by an earlier pass
	var peers []int
	guard := canary{engine: e}
	for range maxPasses {
		procs, err := e.find(ctx, p.File.BuildID, looked)
		if err != nil {
			return results, err
		}
		for i := range procs {
			peers = append(peers, procs[i].PID)
		}
		for _, proc := range procs {
			if err := ctx.Err(); err != nil {
				return results, err
			}
			if what == doApply && guard.failed() {
				results = append(results, guard.leave(proc))
				continue
			}
			j := job{engine: e, patch: p, proc: proc, peers: peers}
			r := j.run(ctx, what)
			if what == doApply && r.Outcome == Patched {
				guard.watch(ctx, proc)
			}
			results = append(results, r)
		}
		if len(procs) == 0 || what == doStatus {
			break
		}
	}
	return results, ctx.Err()
}

// canary watches the first processes that take a patch.
type canary struct {
	engine *Engine
	passed bool
	dead   []int
}

// maxDeadCanaries is how many of the first processes may end under watch
// before the patch is blamed.
const maxDeadCanaries = 2

func (c *canary) failed() bool { return len(c.dead) >= maxDeadCanaries }

// watch waits whether the process, just patched, lives on.
func (c *canary) watch(ctx context.Context, p Process) {
	if c.passed || c.engine.opts.Watch < 0 {
		return
	}
	h, err := pin(p)
	if err != nil {
		c.dead = append(c.dead, p.PID)
		return
	}
	defer h.close()
	const slice = 50 * time.Millisecond // how soon a cancelled context is noticed
	for end := time.Now().Add(c.engine.opts.Watch); ; {
		left := time.Until(end)
		if left <= 0 || ctx.Err() != nil {
			c.passed = true
			return
		}
		if h.ended(min(left, slice)) {
			c.dead = append(c.dead, p.PID)
			return
		}
	}
}

// leave is the result for a process that is not tried any more.
func (c *canary) leave(p Process) Result {
	reason := "not tried: the first processes that took the patch ended right afterwards (pid"
	for _, pid := range c.dead {
		reason += " " + strconv.Itoa(pid)
	}
	return Result{PID: p.PID, Start: p.Start, Command: p.Command, Outcome: Skipped, Reason: reason + ")"}
}
