package userspace

import (
	"context"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
)

// maxPasses bounds how often processes that appeared meanwhile are looked for.
const maxPasses = 4

// Apply switches p on in every process that maps the library. The first process
// that takes the patch is watched for a while before the others follow; one that
// ends in that time is judged by Options.Guard, and when that finds the patch
// guilty, now or later, the rest is left alone. Processes that started meanwhile
// are included. The error is for the whole: the patch or the machine is not fit,
// or ctx ended; results that exist by then are returned with it.
func (e *Engine) Apply(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doApply, 0)
}

// Revert switches p off in every process in which it is on. Its image stays
// mapped, because the program may hold pointers into it, and is used again when
// p is applied again.
func (e *Engine) Revert(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doRevert, 0)
}

// Status reads from every process that maps the library what is on in it. It
// changes nothing and stops nobody.
func (e *Engine) Status(ctx context.Context, p Patch) ([]Result, error) {
	return e.all(ctx, p, doStatus, 0)
}

// all does something to every process, or to one unless pid is 0.
func (e *Engine) all(ctx context.Context, p Patch, what action, pid int) ([]Result, error) {
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
	var peers []int              // that might share memory with one of the processes
	first := canary{engine: e, patch: p.SHA256, passed: pid != 0}
	for range maxPasses {
		procs, more, err := e.targets(ctx, p.File.BuildID, pid, looked)
		if err != nil {
			return results, err
		}
		peers = append(peers, more...)
		for _, proc := range procs {
			if err := ctx.Err(); err != nil {
				return results, err
			}
			if what == doApply && first.failed() != "" {
				results = append(results, first.leave(proc))
				continue
			}
			j := job{engine: e, patch: p, proc: proc, peers: peers}
			r := j.run(ctx, what)
			if what == doApply && r.Outcome == Patched {
				e.opts.Guard.Took(p.SHA256, proc.PID, r.code, !first.passed)
				first.watch(ctx, proc)
			}
			results = append(results, r)
		}
		if len(procs) == 0 || what == doStatus || pid != 0 {
			break
		}
	}
	return results, ctx.Err()
}

// canary watches the first processes that take a patch.
type canary struct {
	engine *Engine
	patch  guard.Artifact
	passed bool
}

// failed returns why no further process may take the patch, "" when none has
// to be kept from it.
func (c *canary) failed() string { return c.engine.opts.Guard.Guilty(c.patch) }

// watch waits whether the process, just patched, lives on. One that ended is
// judged as the guard judges every death.
func (c *canary) watch(ctx context.Context, p Process) {
	if c.passed || c.engine.opts.Watch < 0 {
		return
	}
	h, err := pin(p)
	if err != nil {
		c.engine.opts.Guard.Ended(guard.Death{PID: p.PID, Unsure: true})
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
			signal, ok := Killer(p.PID, h.pidfd)
			c.engine.opts.Guard.Ended(guard.Death{PID: p.PID, Signal: signal, Unsure: !ok})
			return
		}
	}
}

// Killer returns the signal that ended the process that pidfd holds, 0 for none.
// ok is false when it cannot be told any more.
func Killer(pid, pidfd int) (signal int, ok bool) {
	// Until its parent has waited for it, /proc knows; then newer kernels do.
	if h, err := look(pid); err == nil {
		text, err := h.text("stat", make([]byte, 1024), maxStatusBytes)
		h.close()
		if status, ok := parseExit(string(text)); err == nil && ok {
			return status & 0x7f, true
		}
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(&info)))
	if e != 0 || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return int(info.Exit_code) & 0x7f, true
}

// parseExit reads the wait status, the last field, from the /proc/PID/stat of a
// process that ended and was not waited for.
func parseExit(s string) (status int, ok bool) {
	_, fields, ok := statFields(s)
	if !ok || len(fields) == 0 || fields[0] != "Z" {
		return 0, false
	}
	status, err := strconv.Atoi(fields[len(fields)-1])
	return status, err == nil && status >= 0
}

// leave is the result for a process that is not tried any more.
func (c *canary) leave(p Process) Result {
	return Result{PID: p.PID, Start: p.Start, Command: p.Command, Outcome: Skipped, Reason: "not tried: " + c.failed()}
}
