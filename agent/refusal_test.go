package agent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/agent/enrolment"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
	"livemend.dev/livemend/wire"
)

// A refused order changes nothing: not the process, not what is admitted. Then
// the right order works, so it was this and nothing else that was refused.
func TestRefusedOrdersChangeNothing(t *testing.T) {
	s := newSample(t)
	// target replaces what the platform sends of the patch's bytes.
	target := func(change func(b []byte) []byte) func(*otherEnd, *agent) []byte {
		return func(p *otherEnd, _ *agent) []byte {
			p.lie = func(name string, b []byte) []byte {
				if strings.HasPrefix(name, "targets/") {
					return change(bytes.Clone(b))
				}
				return b
			}
			return p.patchOrder(s, 1, trust.Apply, nil)
		}
	}
	// metadata replaces what the platform sends of one metadata file.
	metadata := func(name string, change func(p *otherEnd, b []byte) []byte) func(*otherEnd, *agent) []byte {
		return func(p *otherEnd, _ *agent) []byte {
			p.lie = func(n string, b []byte) []byte {
				if n == name {
					return change(p, bytes.Clone(b))
				}
				return b
			}
			return p.patchOrder(s, 1, trust.Apply, nil)
		}
	}
	// order changes the manifest before the director signs it.
	order := func(change func(*trust.Manifest)) func(*otherEnd, *agent) []byte {
		return func(p *otherEnd, _ *agent) []byte { return p.patchOrder(s, 1, trust.Apply, change) }
	}
	for name, tt := range map[string]struct {
		class string
		alarm bool
		make  func(*otherEnd, *agent) []byte
	}{
		"one flipped bit": {"hash", true, target(func(b []byte) []byte { b[len(b)/2] ^= 1; return b })},
		"same length, other content": {"hash", true, target(func(b []byte) []byte {
			copy(b, s.levels[1].Artifact)
			return b
		})},
		"one byte missing": {"length", true, target(func(b []byte) []byte { return b[:len(b)-1] })},
		"empty file":       {"length", true, target(func(b []byte) []byte { return []byte{} })},
		"repository past its time": {"expired", false, func(p *otherEnd, a *agent) []byte {
			a.late.Store(int64(repo.TimestampLife + time.Hour))
			p.clock = a.now
			return p.patchOrder(s, 1, trust.Apply, nil)
		}},
		"repository rolled back": {"rollback", true, func(p *otherEnd, a *agent) []byte {
			// The agent has seen version 3; the platform then serves version 2.
			before := p.file(p.repoDir + "/timestamp.json")
			p.publishSample(s, 2)
			p.work <- p.patchOrder(s, 1, trust.Apply, func(m *trust.Manifest) { m.Level, m.Task = 2, "see the newest" })
			if r := p.report(); r.Reason != "disagree" {
				p.t.Errorf("the first order ended with %s %q", r.Outcome, r.Reason)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.lie = func(name string, b []byte) []byte {
				if name == "timestamp.json" {
					return before
				}
				return b
			}
			return nil
		}},
		"timestamp without signature": {"threshold", true, metadata("timestamp.json", func(p *otherEnd, b []byte) []byte {
			e := must[*trust.Envelope](p.t)(trust.ParseEnvelope(b, trust.MaxTimestamp))
			e.Signatures = nil
			return e.Encode()
		})},
		"root by too few keys": {"threshold", true, metadata("2.root.json", func(p *otherEnd, _ []byte) []byte {
			var root []trust.PublicKey
			for _, path := range p.repoFiles.RootKeys {
				root = append(root, p.key(path).Public())
			}
			doc := must[[]byte](p.t)(repo.NewRoot(repo.RootSpec{
				Version: 2, Expires: time.Now().Add(time.Hour), RootKeys: root, RootThreshold: 2,
				TargetsKeys: root[:1], TargetsThreshold: 1, // one stolen root key tries to take over
				Snapshot: p.key(p.repoFiles.Snapshot).Public(), Timestamp: p.key(p.repoFiles.Timestamp).Public(),
			}))
			return must[[]byte](p.t)(repo.Sign(p.t.Context(), doc, p.key(p.repoFiles.RootKeys[0])))
		})},
		"targets of other content": {"hash", true, metadata("2.targets.json", func(_ *otherEnd, b []byte) []byte {
			return bytes.Replace(b, []byte(`"level":1`), []byte(`"level":2`), 1)
		})},
		"order not by the director": {"threshold", true, func(p *otherEnd, _ *agent) []byte {
			m := p.manifest(trust.Apply, s.levels[0].Metadata.Path(), func(m *trust.Manifest) { s.fill(m, 1) })
			return p.signed(p.key(p.repoFiles.RootKeys[0]), m)
		}},
		"order with one flipped bit": {"threshold", true, func(p *otherEnd, _ *agent) []byte {
			b := p.patchOrder(s, 1, trust.Apply, nil)
			return bytes.Replace(b, []byte(`"level":1`), []byte(`"level":3`), 1)
		}},
		"order for another system":  {"wrong-system", true, order(func(m *trust.Manifest) { m.SystemID = "S-other" })},
		"order for another key":     {"wrong-system", true, order(func(m *trust.Manifest) { m.KeyHash = sha([]byte("other")) })},
		"order for another build":   {"disagree", true, order(func(m *trust.Manifest) { m.BuildID = strings.Repeat("ab", 20) })},
		"order for another level":   {"disagree", true, order(func(m *trust.Manifest) { m.Level = 2 })},
		"order for other content":   {"disagree", true, order(func(m *trust.Manifest) { m.SHA256 = sha([]byte("other")) })},
		"order for another length":  {"disagree", true, order(func(m *trust.Manifest) { m.Length++ })},
		"order for an unknown file": {"no-target", false, order(func(m *trust.Manifest) { m.Path = "user/none/level-1.lmp" })},
		"order past its time": {"not-fresh", false, order(func(m *trust.Manifest) {
			m.Issued, m.NotAfter = m.Issued-1200, m.Issued-600
		})},
		"no order at all": {"malformed", true, func(*otherEnd, *agent) []byte { return []byte("please") }},
		"denied by the server's policy": {"policy", false, func(p *otherEnd, a *agent) []byte {
			a.writePolicy(`{"deny":["` + string(s.levels[0].Metadata.Target.BuildID) + `"]}`)
			return p.patchOrder(s, 1, trust.Apply, nil)
		}},
		"policy that cannot be read": {"policy", false, func(p *otherEnd, a *agent) []byte {
			a.writePolicy(`{"denny":[]}`)
			return p.patchOrder(s, 1, trust.Apply, nil)
		}},
		"scanner that the policy does not allow": {"policy", false, func(p *otherEnd, a *agent) []byte {
			a.writePolicy(`{"scanners":[]}`)
			return p.order(trust.Scan, "", func(m *trust.Manifest) { m.Scanner = "openscap" })
		}},
		"scan with a patch as content": {"disagree", true, func(p *otherEnd, _ *agent) []byte {
			return p.order(trust.Scan, s.levels[0].Metadata.Path(), func(m *trust.Manifest) {
				s.fill(m, 1)
				m.Level, m.BuildID, m.Scanner = 0, "", "openscap"
			})
		}},
		"patch linked for another build": {"build-id", true, func(p *otherEnd, _ *agent) []byte {
			md := *s.levels[0].Metadata
			md.ID = "U-test-other"
			md.Target.BuildID = patch.BuildID(strings.Repeat("cd", 20))
			path, artifact := md.Path(), s.levels[0].Artifact
			p.publish(map[string][]byte{path: artifact}, func(string) trust.Target { return trust.Target{Custom: md.Custom()} })
			return p.order(trust.Apply, path, func(m *trust.Manifest) {
				s.fill(m, 1)
				m.BuildID = string(md.Target.BuildID)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			p.publishSample(s, 1)
			proc := s.start()
			a := newAgent(t, p)
			a.enrol()
			a.start()
			envelope := tt.make(p, a)
			if envelope == nil {
				envelope = p.patchOrder(s, 1, trust.Apply, nil)
			}
			p.work <- envelope
			wantOutcome(t, p.report(), wire.Refused, tt.class)
			if tt.alarm {
				for next(t, p.alarms, "an alarm").Kind != tt.class {
				}
			}
			proc.expect("leaks")
			if left := a.store.Patches(); len(left) > 0 {
				t.Errorf("admitted after a refusal: %+v", left)
			}
			if a.covered() {
				t.Error("the vulnerability counts as covered after a refusal")
			}
			// The honest order works afterwards.
			p.mu.Lock()
			p.lie, p.clock = nil, time.Now
			p.mu.Unlock()
			a.late.Store(0)
			a.writePolicy(`{}`)
			p.work <- p.patchOrder(s, 1, trust.Apply, nil)
			wantOutcome(t, p.report(), wire.Done, "")
			proc.expect("fixed at level 1")
		})
	}
}

func (a *agent) writePolicy(text string) {
	a.t.Helper()
	if err := os.WriteFile(a.policy, []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

func TestOrderIsCarriedOutOnce(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	proc := s.start()
	a := newAgent(t, p)
	a.enrol()
	a.start()
	apply := p.patchOrder(s, 1, trust.Apply, nil)
	p.work <- apply
	wantOutcome(t, p.report(), wire.Done, "")
	p.work <- p.patchOrder(s, 1, trust.Revert, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	eventually(t, "the reports are acknowledged", func() bool {
		_, err := a.store.NextResult()
		return errors.Is(err, state.ErrAbsent)
	})
	a.restart()
	p.work <- apply
	wantOutcome(t, p.report(), wire.Refused, "replay")
	proc.expect("leaks")
}

func TestPolicyTakesPatchesOff(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	proc := s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	a.writePolicy(`{"deny":["` + s.levels[0].Metadata.Path() + `"]}`)
	eventually(t, "the denied patch is taken off", func() bool { return proc.answer() == "leaks" })
}

func TestEnrolment(t *testing.T) {
	p := newPlatform(t)
	a := newAgent(t, p)
	first := a.enrol()
	if again := a.enrol(); again != first {
		t.Errorf("the same keys enrolled as %v, then as %v", first, again)
	}
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	for name, tt := range map[string]struct {
		change func(*enrolment.Request)
		want   error
	}{
		"wrong digest": {func(r *enrolment.Request) { r.Trust = strings.Replace(r.Trust, "lmd1-", "lmd1-0", 1) }, enrolment.ErrDigest},
		"refused":      {func(r *enrolment.Request) { r.Customer = "C-NONE" }, enrolment.ErrRefused},
		"other platform": {func(r *enrolment.Request) {
			other := newPlatform(t)
			r.Server, r.Trust, r.Credential = other.url, other.bundle.Digest(), other.credential
		}, enrolment.ErrOther},
	} {
		r := a.request()
		tt.change(&r)
		if _, err := enrolment.Run(ctx, a.store, inventory.New(), r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if after, err := a.store.Enrolment(); err != nil || after != first {
			t.Errorf("%s changed the enrolment to %v, %v", name, after, err)
		}
	}
}

func TestPersonDecides(t *testing.T) {
	pending := &wire.Error{Code: wire.CodePending, Message: "a person has to approve"}
	for name, tt := range map[string]struct {
		decision error
		want     error
	}{
		"approved": {nil, nil},
		"refused":  {&wire.Error{Code: wire.CodeRefused, Message: "not one of ours"}, enrolment.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			asked := 0
			p.approve = func() error {
				if asked++; asked == 1 {
					return pending
				}
				return tt.decision
			}
			a := newAgent(t, p)
			r := a.request()
			r.Customer = "C-TEST"
			waited := false
			r.Log = func(text string) { waited = strings.Contains(text, "waiting for approval") }
			ctx, stop := context.WithTimeout(t.Context(), limit)
			defer stop()
			_, err := enrolment.Run(ctx, a.store, inventory.New(), r)
			if !errors.Is(err, tt.want) || !waited || asked != 2 {
				t.Errorf("Run = %v after %d questions, waited %v; want %v", err, asked, waited, tt.want)
			}
			if _, err := a.store.Enrolment(); errors.Is(err, state.ErrAbsent) != (tt.want != nil) {
				t.Errorf("enrolment: %v", err)
			}
		})
	}
}
