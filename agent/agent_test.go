// Package agent_test runs the whole agent against a platform's end with a real
// repository, a real director, a real library and real processes. It has no
// package beside it: the agent's packages are below this folder.
package agent_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"livemend.dev/livemend/agent/enrolment"
	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/link"
	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/orders"
	"livemend.dev/livemend/agent/scanner"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/agent/watch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "agent-test-")
	if err != nil {
		panic(err)
	}
	built.dir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// agent is a running agent with folders of its own.
type agent struct {
	t        *testing.T
	platform *otherEnd
	dir      string
	store    *state.Store
	run      string
	policy   string
	late     atomic.Int64 // how far its clock is ahead, nanoseconds
	every    time.Duration
	said     sync.Map
	watch    time.Duration // over the first process; 0 for the default
	events   bool          // it hears of processes by events
	stop     func()
}

func newAgent(t *testing.T, p *otherEnd) *agent {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the agent needs root: it looks into other processes")
	}
	a := &agent{t: t, platform: p, dir: t.TempDir(), run: t.TempDir(), every: time.Hour}
	a.policy = filepath.Join(a.dir, "policy.json")
	// A scanner runs as somebody else and must get at its own files.
	if err := errors.Join(os.Chmod(a.run, 0o755), os.Chmod(filepath.Dir(a.run), 0o755)); err != nil {
		t.Fatal(err)
	}
	a.open()
	return a
}

func (a *agent) open() {
	a.t.Helper()
	a.store = must[*state.Store](a.t)(state.Open(filepath.Join(a.dir, "state")))
	store := a.store
	a.t.Cleanup(func() { store.Close() })
}

func (a *agent) request() enrolment.Request {
	return enrolment.Request{Server: a.platform.url, Trust: a.platform.bundle.Digest(), Credential: a.platform.credential, Version: "test", Log: a.log}
}

func (a *agent) enrol() state.Enrolment {
	a.t.Helper()
	ctx, stop := context.WithTimeout(a.t.Context(), limit)
	defer stop()
	return must[state.Enrolment](a.t)(enrolment.Run(ctx, a.store, inventory.New(), a.request()))
}

func (a *agent) now() time.Time { return time.Now().Add(time.Duration(a.late.Load())) }

func (a *agent) log(text string) {
	a.t.Log(text)
	a.said.Store(text, true)
}

// missing returns what the agent said of an event source that is not there.
func (a *agent) missing(what string) (text string) {
	a.said.Range(func(k, _ any) bool {
		if s, ok := k.(string); ok && strings.HasPrefix(s, what) {
			text = s
		}
		return true
	})
	return text
}

// start runs the agent until the test or stop ends it.
func (a *agent) start() {
	look, judge := inventory.New(), guard.New(0)
	executor := &orders.Executor{
		Store: a.store, Engine: userspace.New(userspace.Options{Children: true, Guard: judge, Watch: a.watch}), Guard: judge, Scanner: scanner.Runner{Dir: a.run},
		PolicyPath: a.policy, RunDir: a.run, BootID: look.BootID(), Now: a.now, Log: a.log,
	}
	running := link.Agent{Version: "test", Store: a.store, Inventory: look, Every: a.every, Log: a.log, Orders: executor}
	if a.events {
		running.Events = func(ctx context.Context, scan func()) {
			w := watch.Watcher{Guard: judge, Libraries: executor.Libraries, Look: executor.Look, Judge: executor.Judge, Scan: scan, Log: a.log}
			w.Run(ctx)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := running.Run(ctx); !errors.Is(err, context.Canceled) {
			a.t.Errorf("the agent ended: %v", err)
		}
	})
	a.stop = func() { cancel(); done.Wait() }
	a.t.Cleanup(a.stop)
}

// restart ends the agent and starts it again from what is on disk.
func (a *agent) restart() {
	a.t.Helper()
	a.stop()
	if err := a.store.Close(); err != nil {
		a.t.Fatal(err)
	}
	// An order given over the old connection would be lost with it.
	eventually(a.t, "the platform notices the end", func() bool { return a.platform.open.Load() == 0 })
	a.open()
	a.start()
}

func (a *agent) covered() bool {
	a.t.Helper()
	return must[bool](a.t)(localfiles.IsCovered(a.run, cve))
}

// patchOrder makes an order for one level of the sample.
func (p *otherEnd) patchOrder(s *sample, level int, action trust.Action, change func(*trust.Manifest)) []byte {
	p.t.Helper()
	return p.order(action, s.levels[level-1].Metadata.Path(), func(m *trust.Manifest) {
		s.fill(m, level)
		if change != nil {
			change(m)
		}
	})
}

func (s *sample) fill(m *trust.Manifest, level int) {
	r := s.levels[level-1]
	m.Length, m.SHA256, m.Level, m.BuildID = int64(len(r.Artifact)), sha(r.Artifact), int64(level), string(r.Metadata.Target.BuildID)
}

func (p *otherEnd) publishSample(s *sample, levels ...int) {
	p.t.Helper()
	for _, level := range levels {
		r := s.levels[level-1]
		p.publish(map[string][]byte{r.Metadata.Path(): r.Artifact}, func(string) trust.Target {
			return trust.Target{Custom: r.Metadata.Custom()}
		})
	}
}

func wantOutcome(t *testing.T, r wire.Report, outcome wire.Outcome, reason string) {
	t.Helper()
	if r.Outcome != outcome || r.Reason != reason {
		t.Fatalf("the report says %s, %q (%s), want %s, %q", r.Outcome, r.Reason, r.Text, outcome, reason)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestFromEnrolmentToRevert(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	one, two := s.start(), s.start()
	a := newAgent(t, p)
	a.every = 100 * time.Millisecond
	enrolled := a.enrol()
	if enrolled.SystemID == "" || enrolled.Customer != "Test & Sons" {
		t.Fatalf("enrolled as %+v", enrolled)
	}
	a.start()
	first := next(t, p.snapshots, "an inventory")
	if !hasLibrary(first, string(s.levels[0].Metadata.Target.BuildID), 2) {
		t.Errorf("the inventory does not show the library in two processes")
	}
	one.expect("leaks")

	p.mu.Lock()
	p.forget = 1 // the connection breaks before the report is stored: it comes again
	p.mu.Unlock()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	r := p.report()
	wantOutcome(t, r, wire.Done, "")
	if r.SystemID != enrolled.SystemID || len(r.Processes) != 2 || len(r.Applied) != 1 || r.Applied[0].Processes != 2 {
		t.Errorf("report: %+v", r)
	}
	for _, pr := range r.Processes {
		t.Logf("process %d: %s, %d threads, all stopped for %v", pr.PID, pr.Outcome, pr.Threads, time.Duration(pr.StopNS))
	}
	one.expect("fixed at level 1")
	two.expect("fixed at level 1")
	if !a.covered() {
		t.Error("the vulnerability is not in the list although every process is patched")
	}

	three := s.start() // after the order: a round finds it
	eventually(t, "a new process is patched", func() bool { return three.answer() == "fixed at level 1" })

	a.restart() // without any order, and the portal's metadata not asked for
	four := s.start()
	eventually(t, "a new process is patched after a restart", func() bool { return four.answer() == "fixed at level 1" })

	p.work <- p.patchOrder(s, 1, trust.Revert, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	for _, proc := range []*process{one, two, three, four} {
		proc.expect("leaks")
	}
	if a.covered() {
		t.Error("the vulnerability is still in the list after the patch was taken off")
	}
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	one.expect("fixed at level 1")
}

func hasLibrary(s wire.Snapshot, buildID string, processes int64) bool {
	for _, l := range s.Libraries {
		if l.BuildID == buildID && l.Processes >= processes && strings.HasSuffix(l.Path, "/libanswer.so") {
			return true
		}
	}
	return false
}

func TestLevelsOnlyRise(t *testing.T) {
	p, s := newPlatform(t), newSample(t)
	p.publishSample(s, 1, 2)
	proc := s.start()
	a := newAgent(t, p)
	a.enrol()
	a.start()
	for _, step := range []struct {
		level   int
		action  trust.Action
		outcome wire.Outcome
		reason  string
		answer  string
	}{
		{1, trust.Apply, wire.Done, "", "fixed at level 1"},
		{2, trust.Apply, wire.Done, "", "fixed at level 2"},
		{1, trust.Apply, wire.Refused, "rollback", "fixed at level 2"},
		{1, trust.Revert, wire.Refused, "level", "fixed at level 2"},
		{2, trust.Revert, wire.Done, "", "leaks"},
		{2, trust.Revert, wire.Nothing, "", "leaks"},
		{1, trust.Apply, wire.Refused, "rollback", "leaks"},
		{2, trust.Apply, wire.Done, "", "fixed at level 2"},
	} {
		p.work <- p.patchOrder(s, step.level, step.action, nil)
		wantOutcome(t, p.report(), step.outcome, step.reason)
		proc.expect(step.answer)
	}
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
