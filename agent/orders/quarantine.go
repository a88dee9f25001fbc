package orders

import (
	"context"
	"errors"
	"strconv"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

// Judge takes every patch that the guard found guilty off all processes and
// never lets it come back here. Call it when the guard says so.
func (x *Executor) Judge(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	err := x.judge(ctx)
	if err == nil {
		err = x.measureAndPublish(ctx)
	}
	if err != nil && ctx.Err() == nil {
		x.Log("taking off a patch that processes died of: " + err.Error() + "; it is tried again within a minute")
	}
}

// judge does what Judge does, without telling. The caller holds x.mu.
func (x *Executor) judge(ctx context.Context) (errs error) {
	for _, record := range x.Store.Patches() {
		for level := &record; level != nil; level = level.Previous {
			reason := x.guilty(level.Artifact)
			if _, known := x.Store.InQuarantine(level.Artifact); reason == "" || known {
				continue
			}
			errs = errors.Join(errs, x.condemn(ctx, *level, level == &record, reason))
		}
	}
	return errs
}

// guilty returns why the guard found an artifact guilty, "" when it did not.
func (x *Executor) guilty(artifact string) string {
	raw, ok := hextext.Decode(artifact)
	if !ok || len(raw) != len(guard.Artifact{}) {
		return ""
	}
	return x.Guard.Guilty(guard.Artifact(raw))
}

// condemn puts a patch into quarantine, durably, and then takes it off.
func (x *Executor) condemn(ctx context.Context, record state.Patch, newest bool, reason string) error {
	x.Log(record.Path + " is put into quarantine and taken off every process: " + reason)
	err := x.Store.Quarantine(wire.Quarantined{BuildID: record.BuildID, Path: record.Path, Level: record.Level,
		SHA256: record.Artifact, Reason: clip(reason, wire.MaxMessage), Time: x.Now().Unix()})
	if err != nil && !errors.Is(err, state.ErrQuarantine) {
		return err // it goes on after a restart only if it is durable: it is tried again
	}
	if newest {
		record.Phase = state.Reverting
		_, done, failed := x.takeOff(ctx, record)
		if done {
			x.Log(record.Path + " is off every process")
		}
		return errors.Join(err, failed)
	}
	p, failed := x.stored(record)
	if failed == nil {
		_, failed = p.revert(ctx)
	}
	return errors.Join(err, failed)
}

// barred refuses a patch that is in quarantine here.
func (x *Executor) barred(artifact string) error {
	q, ok := x.Store.InQuarantine(artifact)
	if !ok {
		return nil
	}
	return refused(classQuarantine, "this patch is in quarantine on this system and is not applied again: "+q.Reason+"; a later level may be")
}

// Look applies what is in force to one process that lacks it. The next round
// tells of it; what speaks against a patch as a whole is the round's to say.
func (x *Executor) Look(ctx context.Context, pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.Store.Patches()) == 0 {
		return
	}
	allowed, err := policy.Load(x.PolicyPath)
	if err != nil {
		return
	}
	ids, err := x.Engine.BuildIDs(ctx, pid)
	if err != nil {
		return
	}
	for _, id := range ids {
		record, ok := x.Store.Patch(string(id))
		if ok {
			record, ok = kept(record)
		}
		if !ok || allowed.AllowsPatch(record.Path, record.BuildID) != nil {
			continue
		}
		verified, err := x.recheck(record)
		library, ok := verified.(userPatch)
		if err != nil || !ok {
			continue
		}
		results, err := x.Engine.ApplyTo(ctx, library.patch, pid)
		if err != nil {
			continue
		}
		for _, r := range results {
			if r.Outcome == userspace.Patched {
				x.Log(record.Path + ": applied to process " + strconv.Itoa(pid) + ", which is new or loaded the library just now")
			}
		}
	}
}

// Libraries returns the files that were seen mapped and have a patch, and the
// build-ids of all patches in force.
func (x *Executor) Libraries() (files []userspace.Library, inForce []patch.BuildID) {
	for _, record := range x.Store.Patches() {
		if record, ok := kept(record); ok {
			inForce = append(inForce, patch.BuildID(record.BuildID))
		}
	}
	return x.Engine.Libraries(), inForce
}

// kept returns what a record keeps in force: itself, or, while an application
// waits for its order to come again, what was in force before.
func kept(record state.Patch) (state.Patch, bool) {
	if record.Phase == state.Staged && record.Previous != nil && record.Previous.Phase == state.Applied {
		record = *record.Previous
		record.Previous = nil
	}
	return record, record.Phase == state.Applied
}
