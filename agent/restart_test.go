package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
	"livemend.dev/livemend/wire"
)

// interrupt makes the state what a power failure leaves between the admission of
// a level and the end of its first application.
func (a *agent) interrupt(s *sample, level int) {
	a.t.Helper()
	before, ok := a.store.Patch(string(s.levels[0].Metadata.Target.BuildID))
	if !ok {
		a.t.Fatal("nothing is admitted")
	}
	staged := before
	staged.Path, staged.Level, staged.Phase, staged.Previous = s.levels[level-1].Metadata.Path(), int64(level), state.Staged, &before
	staged.Artifact = must[string](a.t)(a.store.PutObject(s.levels[level-1].Artifact))
	if err := a.store.SetPatch(staged); err != nil {
		a.t.Fatal(err)
	}
}

// restartAfter ends the agent, lets damage happen and starts it again.
func (a *agent) restartAfter(damage func()) {
	a.t.Helper()
	eventually(a.t, "the reports are acknowledged", func() bool {
		_, err := a.store.NextResult()
		return errors.Is(err, state.ErrAbsent)
	})
	a.stop()
	damage()
	a.restart()
}

// While a newer level waits for its order to come again, new processes get the
// older one, and after a reboot all do.
func TestInterruptedApplicationKeepsWhatWasInForce(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1, 2)
	one := s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	a.restartAfter(func() { a.interrupt(s, 2) })
	two := s.start()
	eventually(t, "a new process gets the level that was in force", func() bool { return two.answer() == "fixed at level 1" })
	one.expect("fixed at level 1")
	p.work <- p.patchOrder(s, 2, trust.Apply, nil) // the order comes again
	wantOutcome(t, p.report(), wire.Done, "")
	one.expect("fixed at level 2")
	two.expect("fixed at level 2")
}

// A revert takes every level off, also the one that a newer one was just about
// to replace.
func TestRevertTakesOffTheLevelBeforeToo(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1, 2)
	one := s.start()
	a := newAgent(t, p)
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	a.restartAfter(func() { a.interrupt(s, 2) })
	p.work <- p.patchOrder(s, 2, trust.Revert, nil)
	r := p.report()
	wantOutcome(t, r, wire.Done, "")
	if len(r.Processes) != 1 || r.Processes[0].Outcome != wire.Done {
		t.Errorf("the report says of the process: %+v", r.Processes)
	}
	one.expect("leaks")
	if left := a.store.Patches(); len(left) != 0 {
		t.Errorf("%d patches are left on record", len(left))
	}
}

// When processes were patched and the disk fails then, the report must not say
// that nothing was changed.
func TestFailureAfterTheChangeIsToldAsOne(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	proc := s.start()
	a := newAgent(t, p)
	a.enrol()
	a.start()
	record := filepath.Join(a.dir, "state", "patches.json")
	p.mu.Lock()
	p.heard = func(step wire.Step) {
		if step.Name != "apply" {
			return
		}
		// A folder in its place: the next write of the file fails.
		if err := os.Remove(record); err != nil {
			t.Error(err)
		}
		if err := os.Mkdir(record, 0o700); err != nil {
			t.Error(err)
		}
	}
	p.mu.Unlock()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	r := p.report()
	wantOutcome(t, r, wire.Partial, "agent")
	if strings.Contains(r.Text, "nothing was changed") || len(r.Processes) != 1 {
		t.Errorf("the report says %q of %d processes", r.Text, len(r.Processes))
	}
	proc.expect("fixed at level 1")
}

// A platform that keeps an order waiting does not keep new processes waiting.
func TestRoundsGoOnWhileAnOrderWaits(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1, 2)
	s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.mu.Lock()
	p.lie = func(name string, b []byte) []byte {
		if strings.HasPrefix(name, "targets/") {
			once.Do(func() { close(asked); <-goOn })
		}
		return b
	}
	p.mu.Unlock()
	p.work <- p.patchOrder(s, 2, trust.Apply, nil)
	next(t, asked, "the request for the patch")
	late := s.start()
	eventually(t, "a new process is patched meanwhile", func() bool { return late.answer() == "fixed at level 1" })
	close(goOn)
	wantOutcome(t, p.report(), wire.Done, "")
	late.expect("fixed at level 2")
}

// A patch that was withdrawn after it was admitted comes back at boot.
func TestWithdrawnPatchComesBackAtBoot(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	one := s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	p.withdraw(s.levels[0].Metadata.Path())
	// The next order makes the agent take in the metadata without it.
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Refused, "no-target")
	a.restartAfter(func() { a.late.Store(int64(400 * 24 * time.Hour)) }) // and everything has expired
	two := s.start()
	eventually(t, "a new process is patched at boot", func() bool { return two.answer() == "fixed at level 1" })
	one.expect("fixed at level 1")
}

func (p *otherEnd) withdraw(path string) {
	p.t.Helper()
	p.targets = must[[]byte](p.t)(repo.RemoveTarget(p.targets, path, time.Now().Add(24*time.Hour)))
	p.targets = must[[]byte](p.t)(repo.Sign(p.t.Context(), p.targets, p.key(p.repoFiles.TargetsKeys[0]), p.key(p.repoFiles.TargetsKeys[1])))
	if err := p.repository.Publish(p.t.Context(), p.targets, p.artifacts, time.Now()); err != nil {
		p.t.Fatal(err)
	}
}

// The list of what is covered comes back when the folder was wiped, and goes
// when it cannot be kept up to date.
func TestListIsNeverStale(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	if err := os.RemoveAll(a.run); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list comes back", a.covered)
	explained := filepath.Join(a.run, localfiles.State)
	// What explains the list can no longer be written.
	eventually(t, "the file gives way to a folder", func() bool {
		return os.RemoveAll(explained) == nil && os.MkdirAll(filepath.Join(explained, "x"), 0o700) == nil
	})
	eventually(t, "the list is taken away", func() bool { return !a.covered() })
}

// A platform that does not take the inventory gets its orders carried out, and
// the inventory when it takes it again.
func TestRefusedInventoryStopsNothing(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	proc := s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	a.enrol()
	p.noInventory = &wire.Error{Code: wire.CodeInternal, Message: "the disk is full; ask again later"}
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	proc.expect("fixed at level 1")
	p.mu.Lock()
	p.noInventory = nil
	p.mu.Unlock()
	for len(next(t, p.snapshots, "the inventory").Applied) == 0 {
	}
}
