package orders

import (
	"context"
	"errors"
	"strconv"

	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// evidence is everything that a verification of an admitted patch depends on.
type evidence struct {
	artifact, manifest, targets string
	director, portal            int64 // versions of the roots
}

// standing is the truth about one admitted patch.
type standing struct {
	record state.Patch
	count  counts
}

// Round verifies every admitted patch again, applies it to processes that lack
// it, takes off what is being reverted or what the local policy has come to
// deny, and writes the local files. A patch that does not verify stays as it
// is in running processes and goes into no new one. Call it at start and then
// regularly; it needs no network. It returns what was wrong, after doing the
// rest.
func (x *Executor) Round(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	allowed, policyErr := policy.Load(x.PolicyPath)
	errs := errors.Join(policyErr, x.judge(ctx))
	for _, record := range x.Store.Patches() {
		if policyErr == nil && allowed.AllowsPatch(record.Path, record.BuildID) != nil && record.Phase != state.Reverting {
			x.Log("the local policy denies " + record.Path + ": taking it off")
			if err := x.startReverting(&record); err != nil {
				errs = errors.Join(errs, errors.New(record.Path+": "+err.Error()))
				continue
			}
		}
		if err := x.keep(ctx, record, policyErr == nil); err != nil {
			errs = errors.Join(errs, errors.New(record.Path+": "+err.Error()))
		}
		if ctx.Err() != nil {
			return errors.Join(errs, ctx.Err())
		}
	}
	return errors.Join(errs, x.measureAndPublish(ctx))
}

// startReverting records that the patch, and an older level that some process
// may still run, is to be taken off.
func (x *Executor) startReverting(record *state.Patch) error {
	record.Phase = state.Reverting
	return x.Store.SetPatch(*record)
}

// takeOff takes a patch that is being reverted off every process, then the
// older levels that it was to replace. When done is false some process may still
// run one of them, and the record stays for the next round.
func (x *Executor) takeOff(ctx context.Context, record state.Patch) (places []place, done bool, err error) {
	done = true
	for level := &record; level != nil; level = level.Previous {
		p, err := x.stored(*level)
		if err != nil {
			return places, false, err
		}
		some, err := p.revert(ctx)
		places = merge(places, some)
		if err != nil {
			return places, false, err
		}
		if record.Previous != nil { // what one level cannot take off is the other's
			if some, err = p.status(ctx); err != nil {
				return places, false, err
			}
		}
		n := count(some)
		done = done && n.live == 0 && n.stuck == 0
	}
	if !done {
		return places, false, nil
	}
	return places, true, x.Store.RemovePatch(record.BuildID)
}

// keep brings the processes to what the record says.
func (x *Executor) keep(ctx context.Context, record state.Patch, mayApply bool) error {
	switch {
	case record.Phase == state.Reverting:
		_, done, err := x.takeOff(ctx, record)
		if done {
			x.Log(record.Path + " is off every process")
		}
		return err
	case mayApply:
		// An application that was interrupted waits for its order to come again.
		// Until then what was in force before stays in force.
		record, ok := kept(record)
		if !ok {
			return nil
		}
		p, err := x.recheck(record)
		if err != nil {
			return err
		}
		places, err := p.status(ctx)
		if err != nil {
			return err
		}
		if count(places).others == 0 {
			return x.forgetPrevious(record)
		}
		before := count(places).live
		if places, err = p.apply(ctx); err != nil {
			return err
		}
		if err := x.judge(ctx); err != nil {
			return err
		}
		if after := count(places).live; after > before {
			x.Log(record.Path + ": applied to " + strconv.FormatInt(after-before, 10) + " more processes")
		}
	}
	return nil
}

// recheck verifies an admitted patch from what is stored, expiry ignored: the
// director's order for this system, the portal's entry, and their agreement.
func (x *Executor) recheck(record state.Patch) (admitted, error) {
	if err := x.barred(record.Artifact); err != nil {
		return nil, err
	}
	director, err := x.directorRoot()
	if err != nil {
		return nil, err
	}
	cache, err := x.cache()
	if err != nil {
		return nil, err
	}
	rootBytes, err := cache.Load("root.json")
	if err != nil {
		return nil, err
	}
	portal, err := trust.NewTrusted(rootBytes, trust.Ed25519())
	if err != nil {
		return nil, err
	}
	key := evidence{record.Artifact, record.Manifest, record.Targets, director.Version, portal.Root().Version}
	if known, ok := x.verified[key]; ok {
		return known, nil
	}
	verified, err := x.verifyAgain(record, director, portal)
	if err == nil {
		x.rememberAs(key, verified)
	}
	return verified, err
}

func (x *Executor) verifyAgain(record state.Patch, director *trust.DirectorRoot, portal *trust.Trusted) (_ admitted, err error) {
	var artifact, manifest, targets []byte
	for name, b := range map[string]*[]byte{record.Artifact: &artifact, record.Manifest: &manifest, record.Targets: &targets} {
		if *b, err = x.Store.Object(name); err != nil {
			return nil, err
		}
	}
	keys, err := x.Store.Keys()
	if err != nil {
		return nil, err
	}
	enrolled, err := x.Store.Enrolment()
	if err != nil {
		return nil, err
	}
	m, err := trust.RecallManifest(manifest, director, trust.Identity{SystemID: enrolled.SystemID, KeyHash: trust.HashKey(keys.IdentityPublic())})
	if err != nil {
		return nil, err
	}
	if err := portal.RecallTargets(targets); err != nil {
		return nil, err
	}
	target, err := portal.Target(m.Path)
	if err != nil {
		return nil, err
	}
	md, err := patch.ParseCustom(target.Custom)
	if err != nil {
		return nil, err
	}
	if err := trust.Agree(m, target, md); err != nil {
		return nil, err
	}
	if m.SHA256 != record.Artifact || m.BuildID != record.BuildID || m.Path != record.Path {
		return nil, &trust.Refusal{What: "the agent's record of " + record.Path, Err: trust.ErrDisagree}
	}
	return x.decode(m.Path, artifact, m.SHA256, md.Target, m.Level)
}

// stored returns an admitted patch without asking whether it would be admitted
// today: enough for taking it off and for looking.
func (x *Executor) stored(record state.Patch) (admitted, error) {
	artifact, err := x.Store.Object(record.Artifact)
	if err != nil {
		return nil, err
	}
	return x.decode(record.Path, artifact, record.Artifact, patch.Target{BuildID: patch.BuildID(record.BuildID)}, record.Level)
}

// directorRoot returns the director root in force.
func (x *Executor) directorRoot() (*trust.DirectorRoot, error) {
	b, err := x.Store.Trusted(state.DirectorRoot)
	if err != nil {
		return nil, err
	}
	return trust.ParseDirectorRoot(b, trust.Ed25519())
}

// renewEvidence lets admitted patches rest on the newest metadata that still
// names them, so that they survive a change of the portal's keys and old
// metadata need not be kept.
func (x *Executor) renewEvidence(trusted *trust.Trusted, targets []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var name string
	for _, record := range x.Store.Patches() {
		t, err := trusted.Target(record.Path)
		if err != nil || t.SHA256 != record.Artifact {
			continue // withdrawn or replaced: what was admitted stays, on its old evidence
		}
		if name == "" {
			if name, err = x.Store.PutObject(targets); err != nil {
				return err
			}
		}
		if record.Targets == name {
			continue
		}
		record.Targets = name
		if err := x.Store.SetPatch(record); err != nil {
			return err
		}
	}
	return nil
}

func (x *Executor) rememberAs(key evidence, verified admitted) {
	if x.verified == nil || len(x.verified) > 2*len(x.Store.Patches())+8 {
		x.verified = map[evidence]admitted{} // forget what is not in force any more
	}
	x.verified[key] = verified
}

// forgetPrevious drops the older level of a patch that every process runs.
func (x *Executor) forgetPrevious(record state.Patch) error {
	if record.Previous == nil {
		return nil
	}
	record.Previous = nil
	return x.Store.SetPatch(record)
}

// tell brings what is known and said of the processes up to date.
func (x *Executor) tell(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.measureAndPublish(ctx)
}

// measureAndPublish does what tell does. The caller holds x.mu.
func (x *Executor) measureAndPublish(ctx context.Context) error {
	truth := x.measure(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // the agent ends: what it could not look at any more says nothing
	}
	x.truth = truth
	if err := x.publish(); err != nil {
		return errors.New("the files below " + x.RunDir + " could not be written, so that nothing counts as covered: " + err.Error())
	}
	return nil
}

// measure asks the processes what is true for every admitted patch.
func (x *Executor) measure(ctx context.Context) (truth []standing) {
	for _, record := range x.Store.Patches() {
		s := standing{record: record}
		p, err := x.stored(record)
		if err == nil {
			var places []place
			if places, err = p.status(ctx); err == nil {
				s.count = count(places)
			}
		}
		if err != nil {
			s.count = counts{others: 1} // unknown is not covered
			x.Log("the state of " + record.Path + " cannot be told: " + err.Error())
		}
		truth = append(truth, s)
	}
	return truth
}

// publish writes the local files from the last measurement.
func (x *Executor) publish() error {
	t := localfiles.Truth{BootID: x.BootID, Time: x.Now()}
	if e, err := x.Store.Enrolment(); err == nil {
		t.SystemID = e.SystemID
	}
	for _, s := range x.truth {
		t.Patches = append(t.Patches, s.local())
	}
	t.Quarantined = x.Store.Quarantines()
	t.KernelHalted = x.KernelHalted()
	return localfiles.Write(x.RunDir, t)
}

func (s standing) local() localfiles.Patch {
	return localfiles.Patch{
		Path: s.record.Path, SHA256: s.record.Artifact, BuildID: s.record.BuildID, Level: s.record.Level,
		Phase: string(s.record.Phase), Patched: s.count.live, Others: s.count.others, CVEs: s.record.CVEs,
	}
}

// Applied returns what the last measurement found in force.
func (x *Executor) Applied() []wire.Applied {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.applied()
}

func (x *Executor) applied() []wire.Applied {
	var out []wire.Applied
	for _, s := range x.truth {
		a := wire.Applied{Path: s.record.Path, SHA256: s.record.Artifact, Level: s.record.Level, Processes: s.count.live}
		if s.local().Holds() {
			a.CVEs = s.record.CVEs
		}
		out = append(out, a)
	}
	return out
}
