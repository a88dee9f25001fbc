package orders

import (
	"context"
	"errors"
	"runtime"
	"strconv"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/patch"
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

// apply admits the ordered patch and applies it wherever it belongs.
func (o *order) apply(ctx context.Context) error {
	if isKernel(o.manifest.Path) && o.x.Kernel != nil {
		o.x.Kernel.Engine.Prepare() // while the rest is fetched and verified
	}
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
	if md.Target.Arch != runtime.GOARCH {
		return refused(classKind, "the patch is for another architecture")
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
	p, err := o.x.decode(o.manifest.Path, artifact, o.manifest.SHA256, md.Target, o.manifest.Level)
	if err != nil {
		return err
	}
	o.x.mu.Lock()
	defer o.x.mu.Unlock()
	record, err := o.stage(artifact, targets, md)
	if err != nil {
		return err
	}
	o.progress(ctx, "apply", functions(len(md.Functions)))
	places, err := p.apply(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // the agent ends: what is staged stays, until the order is given again
	}
	if reason := o.x.guilty(record.Artifact); reason != "" {
		return o.withdraw(ctx, record, places, reason)
	}
	n := count(places)
	o.changed = n.live > 0
	if err != nil && n.live == 0 {
		o.changed = !undone(err)
		return errors.Join(&refusal{classEngine, err}, o.x.unstage(record))
	}
	if err != nil { // some processes have it: the rest is tried again
		o.x.Log("applying " + record.Path + " was not finished: " + err.Error())
		n.others++
	}
	return o.conclude(record, p, places, n)
}

func functions(n int) string {
	if n == 1 {
		return "1 function"
	}
	return strconv.Itoa(n) + " functions"
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
func (o *order) withdraw(ctx context.Context, record state.Patch, places []place, reason string) error {
	o.changed = true
	if err := o.x.condemn(ctx, record, true, reason); err != nil {
		return &refusal{classQuarantine, errors.New("the patch is in quarantine here (" + reason + "), and is not off every process yet: " + err.Error())}
	}
	o.report.Processes = reports(places)
	o.report.Outcome, o.report.Reason = wire.Failed, classQuarantine
	o.report.Text = clip("the patch is in quarantine on this system and was taken off every process that had it: "+reason, wire.MaxMessage)
	return nil
}

// conclude writes what became of an application into state and report.
func (o *order) conclude(record state.Patch, p admitted, places []place, n counts) error {
	o.report.Processes = reports(places)
	if n.live == 0 && n.others > 0 {
		o.report.Outcome, o.report.Reason = wire.Failed, classEngine
		o.report.Text = p.account(wire.Failed, n)
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
	case n.others > 0:
		o.report.Outcome = wire.Partial
	default:
		o.report.Outcome = wire.Done
	}
	o.report.Text = p.account(o.report.Outcome, n)
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
	places, done, err := o.x.takeOff(ctx, record)
	o.report.Processes = reports(places)
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
