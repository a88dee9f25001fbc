// Package guard decides whether a live patch kills the processes that take it.
// A process that took one is on probation for a while; one that dies in the
// patch's code, or two that die for no reason that is known, convict it.
//
// The verdict is a pure state machine (verdict.go). Around it, Guard puts
// evidence together that comes from several places in any order: the kernel's
// log says where a thread was, the kernel's process events or the process's own
// remains say which signal killed it. It must not patch, revert or store
// anything: whoever applied the patch acts on the verdict.
package guard

import (
	"slices"
	"sync"
	"time"
)

// Probation is how long a process is watched after it took a patch.
const Probation = 10 * time.Minute

const (
	patience   = 250 * time.Millisecond // how long a death waits for the kernel's log
	recent     = 10 * time.Second       // how long deaths and faults are kept that fit nothing yet
	maxFaults  = 256                    // faults that wait for a death
	maxDeaths  = 256                    // deaths that wait for the log, or for the patch to be reported
	maxThreads = 64                     // threads of one death that are compared with the log
)

// Guard watches patches. Its methods may be used concurrently; the zero value
// is not ready, see New.
type Guard struct {
	probation time.Duration
	convicted chan struct{}

	mu     sync.Mutex
	log    bool // the kernel's log can be read and names faults
	cases  []*patchCase
	faults map[int]fault // by thread
	deaths map[int]*death
}

// patchCase is one patch and what is known of it.
type patchCase struct {
	artifact Artifact
	state
}

type fault struct {
	ip uint64
	at time.Time
}

// death is a crash that is not judged yet, or was just judged.
type death struct {
	Death
	threads []int
	at      time.Time
	judged  chan struct{} // closed when it was
}

// New returns a guard. probation 0 means Probation.
func New(probation time.Duration) *Guard {
	if probation == 0 {
		probation = Probation
	}
	return &Guard{probation: probation, convicted: make(chan struct{}, 1),
		faults: map[int]fault{}, deaths: map[int]*death{}}
}

// Convicted tells, with at most one message waiting, that some patch was found
// guilty.
func (g *Guard) Convicted() <-chan struct{} { return g.convicted }

// ReadsLog says whether faults can be expected from the kernel's log.
func (g *Guard) ReadsLog(yes bool) {
	g.mu.Lock()
	g.log = yes
	g.mu.Unlock()
}

// Guilty returns why a patch is guilty, "" when it is not.
func (g *Guard) Guilty(a Artifact) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.of(a).reason
}

// of returns the case of a patch. The caller holds g.mu.
func (g *Guard) of(a Artifact) *patchCase {
	for _, c := range g.cases {
		if c.artifact == a {
			return c
		}
	}
	c := &patchCase{artifact: a}
	g.cases = append(g.cases, c)
	return c
}

// Took puts a process on probation. It may have died already.
func (g *Guard) Took(a Artifact, pid int, code []Span, canary bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget()
	g.of(a).step(&Event{Kind: Took, PID: pid, Code: code, Canary: canary}, time.Now(), g.probation)
	if d := g.deaths[pid]; d != nil && d.isJudged() {
		g.judge(d)
	}
}

// Watched returns the processes that are on probation.
func (g *Guard) Watched() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	var pids []int
	for _, c := range g.cases {
		for pid := range c.trials {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Forked notes that child is a copy of parent, patches included. Whatever had
// the child's number before is not meant any more.
func (g *Guard) Forked(parent, child int) {
	g.all(&Event{Kind: Left, PID: child})
	g.all(&Event{Kind: Forked, PID: parent, Child: child})
	g.mu.Lock()
	delete(g.deaths, child)
	g.mu.Unlock()
}

// Left notes that a process runs another program now, or is not the one that
// took a patch.
func (g *Guard) Left(pid int) { g.all(&Event{Kind: Left, PID: pid}) }

func (g *Guard) all(e *Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.cases {
		c.step(e, time.Now(), g.probation)
	}
}

// Fault notes where a thread was when the kernel had to kill it. It is only
// believed together with a death.
func (g *Guard) Fault(thread int, ip uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget()
	for _, d := range g.deaths {
		if !d.isJudged() && slices.Contains(d.threads, thread) {
			d.IP = ip
			g.judge(d)
			return
		}
	}
	if len(g.faults) < maxFaults {
		g.faults[thread] = fault{ip, time.Now()}
	}
}

// Exited notes how a thread ended: the signal that killed it, or none. A signal
// that kills does so to all threads of a process.
func (g *Guard) Exited(d Death, thread int) {
	if d.Signal == 0 && d.PID != thread {
		return // one thread of many went its way
	}
	g.ended(d, thread)
}

// Ended notes that a process ended, by what can be told afterwards, and returns
// when the death is judged. What was known of it before counts.
func (g *Guard) Ended(d Death) {
	if judged := g.ended(d, d.PID); judged != nil {
		<-judged
	}
}

func (g *Guard) ended(e Death, thread int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget()
	d := g.deaths[e.PID]
	switch {
	case d != nil:
		if len(d.threads) < maxThreads && !slices.Contains(d.threads, thread) {
			d.threads = append(d.threads, thread)
		}
		if d.Unsure && !e.Unsure {
			d.Death = e
		}
	case !e.crash() && !(e.Unsure && g.log) || len(g.deaths) >= maxDeaths:
		g.judge(&death{Death: e, judged: make(chan struct{})})
		return nil
	default:
		d = &death{Death: e, threads: []int{thread}, at: time.Now(), judged: make(chan struct{})}
		g.deaths[e.PID] = d
		if g.log {
			time.AfterFunc(patience, func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				if !d.isJudged() {
					g.judge(d)
				}
			})
		}
	}
	if f, ok := g.faults[thread]; ok && d.IP == 0 {
		d.IP = f.ip
		delete(g.faults, thread)
	}
	if !d.isJudged() && (d.IP != 0 || !g.log || !d.crash() && !d.Unsure) {
		g.judge(d)
	}
	return d.judged
}

// judge puts a death before every patch that the process had. Where the patch
// is known whose code it was, no other one is suspected. The caller holds g.mu.
func (g *Guard) judge(d *death) {
	found := false
	for _, c := range g.cases {
		t := c.trials[d.PID]
		found = found || t != nil && d.crash() && t.holds(d.IP)
	}
	guilty := false
	for _, c := range g.cases {
		e := Event{Kind: Died, PID: d.PID, Death: d.Death}
		if t := c.trials[d.PID]; found && t != nil && !t.holds(d.IP) {
			e.Kind = Left
		}
		before := c.reason
		c.step(&e, time.Now(), g.probation)
		guilty = guilty || before != c.reason
	}
	if !d.isJudged() {
		close(d.judged)
	}
	if guilty {
		select {
		case g.convicted <- struct{}{}:
		default:
		}
	}
}

// forget drops evidence that fitted nothing. The caller holds g.mu.
func (g *Guard) forget() {
	for thread, f := range g.faults {
		if time.Since(f.at) > recent {
			delete(g.faults, thread)
		}
	}
	for pid, d := range g.deaths {
		if time.Since(d.at) > recent {
			delete(g.deaths, pid)
		}
	}
}

func (d *death) isJudged() bool {
	select {
	case <-d.judged:
		return true
	default:
		return false
	}
}
