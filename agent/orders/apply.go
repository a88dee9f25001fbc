package orders

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"strconv"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/wire"
)

// cache returns the portal's metadata as this system last accepted it.
func (x *Executor) cache() (*client.Folder, error) { return client.OpenFolder(x.Store.RepositoryDir()) }

// resolve refreshes the portal's repository and returns what it says of the
// ordered target, together with the signed metadata that says it.
func (o *order) resolve(ctx context.Context) (target trust.Target, targets []byte, err error) {
	o.progress(ctx, "verify", "checking the signatures of the portal's repository")
	cache, err := o.x.cache()
	if err != nil {
		return trust.Target{}, nil, err
	}
	trusted, err := client.Refresh(ctx, cache, o.platform, trust.Ed25519(), o.x.Now())
	if err != nil {
		return trust.Target{}, nil, err
	}
	if targets, err = cache.Load("targets.json"); err != nil {
		return trust.Target{}, nil, err
	}
	if err := o.x.renewEvidence(trusted, targets); err != nil {
		return trust.Target{}, nil, err
	}
	target, err = trusted.Target(o.manifest.Path)
	return target, targets, err
}

// apply admits the ordered patch and applies it to every process that has the
// library mapped.
func (o *order) apply(ctx context.Context) error {
	target, targets, err := o.resolve(ctx)
	if err != nil {
		return err
	}
	md, err := patch.ParseCustom(target.Custom)
	if err != nil && !errors.Is(err, patch.ErrNotPatch) {
		return &refusal{classKind, err}
	}
	if err != nil {
		md = nil // Agree refuses
	}
	if err := trust.Agree(o.manifest, target, md); err != nil {
		return err
	}
	if md.Kind != patch.User || md.Target.Arch != runtime.GOARCH {
		return refused(classKind, "this agent cannot apply a patch of this kind or for this architecture")
	}
	if floor := o.x.Store.Floor(o.manifest.BuildID); o.manifest.Level < floor {
		return &trust.Refusal{What: "patch level " + strconv.FormatInt(o.manifest.Level, 10), Err: trust.ErrRollback,
			Detail: "this system has had level " + strconv.FormatInt(floor, 10)}
	}
	if err := o.x.barred(o.manifest.SHA256); err != nil {
		return err
	}
	o.progress(ctx, "download", strconv.FormatInt(target.Length, 10)+" bytes, each checked against what was signed")
	artifact, err := o.platform.download(ctx, target)
	if err != nil {
		return err
	}
	live, err := decode(artifact, o.manifest.SHA256, o.manifest.BuildID, o.manifest.Level)
	if err != nil {
		return err
	}
	o.x.mu.Lock()
	defer o.x.mu.Unlock()
	record, err := o.stage(artifact, targets, md)
	if err != nil {
		return err
	}
	o.progress(ctx, "apply", strconv.Itoa(len(live.File.Hunks))+" functions")
	results, err := o.x.Engine.Apply(ctx, live)
	if ctx.Err() != nil {
		return ctx.Err() // the agent ends: what is staged stays, until the order is given again
	}
	if reason := o.x.Guard.Guilty(live.SHA256); reason != "" {
		return o.withdraw(ctx, record, results, reason)
	}
	n := count(results)
	o.changed = n.live > 0
	if err != nil && n.live == 0 {
		return errors.Join(&refusal{classEngine, err}, o.x.unstage(record))
	}
	if err != nil { // some processes have it: the rest is tried again
		o.x.Log("applying " + record.Path + " was not finished: " + err.Error())
		n.others++
	}
	return o.conclude(record, results, n)
}

// decode makes the engine's patch of an artifact that is signed already.
func decode(artifact []byte, sum, buildID string, level int64) (userspace.Patch, error) {
	file, err := image.Decode(artifact)
	if err != nil {
		return userspace.Patch{}, &refusal{classImage, err}
	}
	if string(file.BuildID) != buildID {
		return userspace.Patch{}, refused(classTarget, "the patch was linked for another build of the library")
	}
	raw, ok := hextext.Decode(sum)
	if !ok || len(raw) != sha256.Size {
		return userspace.Patch{}, refused("malformed", "the hash of the patch is no hash")
	}
	return userspace.Patch{File: file, SHA256: [sha256.Size]byte(raw), Level: level}, nil
}

// stage records, before anything is changed, what is about to be applied and
// the evidence for it.
func (o *order) stage(artifact, targets []byte, md *patch.Metadata) (state.Patch, error) {
	record := state.Patch{BuildID: o.manifest.BuildID, Path: o.manifest.Path, Level: o.manifest.Level, Phase: state.Staged}
	for _, f := range md.Fixes {
		record.CVEs = append(record.CVEs, string(f.CVE))
	}
	for object, b := range map[*string][]byte{&record.Artifact: artifact, &record.Manifest: o.envelope, &record.Targets: targets} {
		var err error
		if *object, err = o.x.Store.PutObject(b); err != nil {
			return record, err
		}
	}
	if before, ok := o.x.Store.Patch(record.BuildID); ok {
		if before.Phase == state.Staged { // an application that a crash ended
			record.Previous = before.Previous
		} else {
			record.Previous = &before
		}
	}
	return record, o.x.Store.SetPatch(record)
}

// unstage puts back what was in force before an application that changed nothing.
func (x *Executor) unstage(record state.Patch) error {
	if record.Previous != nil {
		return x.Store.SetPatch(*record.Previous)
	}
	return x.Store.RemovePatch(record.BuildID)
}

// withdraw ends an application that processes died of.
func (o *order) withdraw(ctx context.Context, record state.Patch, results []userspace.Result, reason string) error {
	o.changed = true
	if err := o.x.condemn(ctx, record, true, reason); err != nil {
		return &refusal{classQuarantine, errors.New("the patch is in quarantine here (" + reason + "), and is not off every process yet: " + err.Error())}
	}
	o.report.Processes = processes(results)
	o.report.Outcome, o.report.Reason = wire.Failed, classQuarantine
	o.report.Text = clip("the patch is in quarantine on this system and was taken off every process that had it: "+reason, wire.MaxMessage)
	return nil
}

// conclude writes what became of an application into state and report.
func (o *order) conclude(record state.Patch, results []userspace.Result, n counts) error {
	o.report.Processes = processes(results)
	if n.live == 0 && n.others > 0 {
		o.report.Outcome, o.report.Reason = wire.Failed, classEngine
		o.report.Text = "the patch could not be applied to any process; nothing was changed: see the reason of each"
		return o.x.unstage(record)
	}
	record.Phase = state.Applied
	if n.others == 0 {
		record.Previous = nil
	}
	if err := o.x.Store.SetPatch(record); err != nil {
		return err
	}
	switch {
	case n.live == 0:
		o.report.Outcome = wire.Nothing
		o.report.Text = "no process has the library mapped; processes that start or load it later are patched at once where the kernel tells of them, else within a minute"
	case n.others > 0:
		o.report.Outcome = wire.Partial
		o.report.Text = strconv.FormatInt(n.live, 10) + " processes are patched, " + strconv.FormatInt(n.others, 10) + " could not be patched yet and are tried again"
	default:
		o.report.Outcome = wire.Done
		o.report.Text = "every process that has the library mapped is patched: " + strconv.FormatInt(n.live, 10)
	}
	return nil
}

// revert takes a patch off every process. The director alone decides that.
func (o *order) revert(ctx context.Context) error {
	o.progress(ctx, "revert", "taking the patch off every process that has it")
	o.x.mu.Lock()
	defer o.x.mu.Unlock()
	record, ok := o.x.Store.Patch(o.manifest.BuildID)
	if !ok {
		o.report.Outcome, o.report.Text = wire.Nothing, "no patch for this library is in force here"
		return nil
	}
	if record.Path != o.manifest.Path || record.Artifact != o.manifest.SHA256 {
		return refused("level", "another patch is in force here than the order names: level "+strconv.FormatInt(record.Level, 10))
	}
	if _, err := o.x.stored(record); err != nil {
		return err // it cannot be taken off, so nothing begins
	}
	if err := o.x.startReverting(&record); err != nil {
		return err
	}
	o.changed = true // from here on it is reverted, in the next rounds if not now
	results, done, err := o.x.takeOff(ctx, record)
	o.report.Processes = processes(results)
	if ctx.Err() != nil {
		return ctx.Err() // the agent ends: it goes on reverting when it is back
	}
	switch {
	case err != nil:
		return &refusal{classEngine, err}
	case !done:
		o.report.Outcome = wire.Partial
		o.report.Text = "the patch could not be taken off every process yet: it is tried again every minute"
	default:
		o.report.Outcome, o.report.Text = wire.Done, "the patch is off; its level stays the lowest that is accepted"
	}
	return nil
}
