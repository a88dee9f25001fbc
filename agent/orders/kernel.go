package orders

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
	"livemend.dev/livemend/wire"
)

// kernelPatch is a patch for the running kernel, which is one place. Where
// another kernel runs, there is none.
type kernelPatch struct {
	x     *Executor
	patch kernel.Patch
	path  string
}

func (k kernelPatch) apply(ctx context.Context) ([]place, error) {
	running, err := kernel.Running("/")
	if err != nil {
		return nil, err
	}
	if running.BuildID != k.patch.Target.BuildID {
		return nil, nil
	}
	if name, err := k.x.stranger(k.patch.Module); err != nil {
		return nil, err
	} else if name != "" {
		return nil, errors.New("the live patch " + name + ", which this agent did not load, is in force, and ours would take its place; nothing was loaded: take it off first, or deny kernel patches in the local policy")
	}
	result, err := k.x.Kernel.Apply(ctx, k.patch, k.path)
	if err != nil {
		return nil, err
	}
	p := k.place(live, wire.Done)
	switch {
	case result.Forced:
		p.Reason = "some tasks were forced over, so nothing is unloaded before the next restart: " + names(result.Tasks)
	case result.Nudged > 0:
		p.Reason = strconv.Itoa(result.Nudged) + " tasks were stopped and continued, so that they leave the old functions"
	case result.Outcome == kernel.Already:
		p.Reason = "had the patch already"
	default:
		p.Reason = "loaded and switched in " + strconv.FormatInt(result.Took.Milliseconds(), 10) + " ms"
	}
	p.Reason = clip(p.Reason, wire.MaxMessage)
	return []place{p}, nil
}

func (k kernelPatch) revert(ctx context.Context) ([]place, error) {
	result, err := k.x.Kernel.Revert(ctx, k.patch)
	if err != nil {
		return nil, err
	}
	if result.Outcome == kernel.Reverted {
		return []place{k.place(reverted, wire.Done)}, nil
	}
	return k.status(ctx)
}

func (k kernelPatch) status(context.Context) ([]place, error) {
	running, err := kernel.Running("/")
	if err != nil {
		return nil, err
	}
	on, err := k.x.Kernel.Engine.IsApplied(k.patch)
	switch {
	case err != nil:
		return nil, err
	case on:
		return []place{k.place(live, wire.Done)}, nil
	case running.BuildID != k.patch.Target.BuildID:
		return nil, nil
	}
	return []place{k.place(old, wire.Nothing)}, nil
}

func (k kernelPatch) place(c condition, outcome wire.Outcome) place {
	return place{ProcessResult: wire.ProcessResult{Command: "kernel", Outcome: outcome}, condition: c}
}

func (k kernelPatch) account(outcome wire.Outcome, _ counts) string {
	if outcome == wire.Nothing {
		return "another kernel is running; the patch is loaded when its kernel is"
	}
	return "the running kernel is patched"
}

// stranger returns the name of a live patch in the kernel that is neither the one
// in module nor any that was admitted here, "" when there is none.
func (x *Executor) stranger(own []byte) (name string, err error) {
	loaded, err := x.Kernel.Engine.Status()
	if err != nil || len(loaded) == 0 {
		return "", err
	}
	known := map[patch.BuildID]bool{}
	know := func(b []byte) {
		if m, err := module.Read(b); err == nil {
			known[m.BuildID] = m.BuildID != ""
		}
	}
	know(own)
	for _, record := range x.Store.Patches() {
		for level := &record; level != nil && isKernel(record.Path); level = level.Previous {
			if b, err := x.Store.Object(level.Artifact); err == nil {
				know(b)
			}
		}
	}
	for _, l := range loaded {
		if !known[l.BuildID] {
			return l.Name, nil
		}
	}
	return "", nil
}

func names(tasks []kernel.Task) string {
	var words []string
	for _, t := range tasks {
		words = append(words, t.Command+" ("+strconv.Itoa(t.PID)+")")
	}
	return strings.Join(words, ", ")
}

// isKernel reports whether a target path names a kernel patch.
func isKernel(path string) bool { return strings.HasPrefix(path, string(patch.Kernel)+"/") }

// undone reports whether an engine's error means that all is as it was.
func undone(err error) bool {
	return !errors.Is(err, kernel.ErrOops) && !errors.Is(err, kernel.ErrHung) && !errors.Is(err, kernel.ErrStuck)
}

// Boot loads the kernel patches that proved themselves, from what is stored and
// verified again. It is for the time before the network is there, and needs
// none. One that was on probation when the system was shut down has to wait for
// Round. The Keeper must have been started with inDoubt, what it found before.
func (x *Executor) Boot(ctx context.Context, inDoubt intent.Record) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	allowed, err := policy.Load(x.PolicyPath)
	if err != nil {
		return err
	}
	var errs error
	for _, record := range x.Store.Patches() {
		record, ok := kept(record)
		if !ok || !isKernel(record.Path) || record.Artifact == inDoubt.SHA256 || allowed.AllowsPatch(record.Path, record.BuildID) != nil {
			continue
		}
		if err := x.load(ctx, record); err != nil {
			errs = errors.Join(errs, errors.New(record.Path+": "+err.Error()))
		}
	}
	return errors.Join(errs, x.measureAndPublish(ctx))
}

func (x *Executor) load(ctx context.Context, record state.Patch) error {
	p, err := x.recheck(record)
	if err != nil {
		return err
	}
	places, err := p.apply(ctx)
	if err == nil && count(places).live > 0 {
		x.Log(record.Path + ": " + places[0].Reason)
	}
	return err
}

// KernelHalted reports whether no kernel patch is loaded until a person at this
// server allows it.
func (x *Executor) KernelHalted() bool { return x.Kernel != nil && x.Kernel.Halted() }
