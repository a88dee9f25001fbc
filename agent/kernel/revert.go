package kernel

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

// Revert takes a patch off and removes its module. When a task stays in the
// patch's functions it keeps the patch, ErrKept.
func (e *Engine) Revert(ctx context.Context, p Patch) (Result, error) {
	m, err := module.Read(p.Module)
	if err != nil {
		return Result{}, &Error{Kind: ErrModule, Detail: err.Error()}
	}
	return e.takeOff(ctx, m.Name, m.BuildID)
}

// takeOff is Revert for a module of that name and build-id; another one of this
// name is not the patch.
func (e *Engine) takeOff(ctx context.Context, name string, build patch.BuildID) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	start := time.Now()
	r := Result{Name: name}
	id, err := e.identity()
	if err != nil {
		return r, err
	}
	now, err := readPhase(name)
	switch {
	case err != nil:
		return r, err
	case build == "" || moduleID(name) != build:
		r.Outcome = Absent
		return r, nil
	case initState(name) == "coming":
		return r, &Error{Kind: ErrRebootNeeded, Detail: "module " + name}
	case e.forced(&id):
		return r, &Error{Kind: ErrForced}
	}
	if now.there {
		if err := e.disable(ctx, name, now); err != nil {
			return r, err
		}
	}
	r.Took = time.Since(start)
	if err := unload(name); err != nil {
		return r, err
	}
	r.Outcome = Reverted
	return r, nil
}

func (e *Engine) disable(ctx context.Context, name string, now phase) error {
	if now.enabled {
		if err := set(name, "enabled", "0"); errors.Is(err, unix.EBUSY) {
			return &Error{Kind: ErrBusy}
		} else if err != nil {
			return &Error{Kind: ErrRefused, Detail: err.Error()}
		}
	}
	end := time.Now().Add(e.options.SwitchTime)
	until := end
	if after := e.options.NudgeAfter; after > 0 && after < e.options.SwitchTime {
		until = time.Now().Add(after)
	}
	p, _, err := settle(ctx, name, until)
	if err == nil && p.there && until.Before(end) {
		nudge(stalled(oldCode))
		p, _, err = settle(ctx, name, end)
	}
	if !p.there && err == nil {
		return nil
	}
	tasks := stalled(oldCode)
	if back := set(name, "enabled", "1"); back != nil {
		return errors.Join(err, &Error{Kind: ErrStuck, Tasks: tasks}, back)
	}
	p, over, back := settle(context.WithoutCancel(ctx), name, time.Now().Add(reverseTime))
	switch {
	case back != nil || !over:
		return errors.Join(err, &Error{Kind: ErrStuck, Tasks: tasks}, back)
	case !p.there:
		return nil // it was over in that very moment
	}
	return errors.Join(err, &Error{Kind: ErrKept, Tasks: tasks})
}
