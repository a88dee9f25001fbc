package guard

import (
	"slices"
	"strconv"
	"time"
)

// Artifact names a patch by the SHA-256 of its artifact.
type Artifact [32]byte

// Span is a range of addresses, the end not in it.
type Span struct{ From, To uint64 }

// maxProbation bounds the processes of one patch that are on probation at a
// time. Those beyond it are patched and not watched.
const maxProbation = 4096

// maxSuspects is how many deaths that nothing explains convict a patch.
const maxSuspects = 2

// Death is how one process ended.
type Death struct {
	PID    int
	Signal int    // that killed it; 0 when it ended by itself
	Unsure bool   // nobody knows how it ended: Signal means nothing
	IP     uint64 // where it was when it died; 0 when nobody knows
}

// crash reports whether the death is one that wrong code can cause.
func (d *Death) crash() bool {
	switch d.Signal {
	case sigILL, sigTRAP, sigABRT, sigBUS, sigFPE, sigSEGV:
		return !d.Unsure
	}
	return false
}

// Numbers of signals, the same on every architecture that Linux has.
const (
	sigILL  = 4
	sigTRAP = 5
	sigABRT = 6
	sigBUS  = 7
	sigFPE  = 8
	sigSEGV = 11
)

func signalName(n int) string {
	switch n {
	case sigILL:
		return "SIGILL"
	case sigTRAP:
		return "SIGTRAP"
	case sigABRT:
		return "SIGABRT"
	case sigBUS:
		return "SIGBUS"
	case sigFPE:
		return "SIGFPE"
	}
	return "SIGSEGV"
}

// EventKind says what happened to a process.
type EventKind int

// What can happen. Took: the patch was switched on in it. Forked: Child is a
// copy of it. Left: it started another program, so the patch is not in it any
// more. Died: it ended.
const (
	Took EventKind = iota + 1
	Forked
	Left
	Died
)

// Event is what happened to process PID.
type Event struct {
	Kind   EventKind
	PID    int
	Child  int    // Forked
	Code   []Span // Took: where the patch's code lies in it
	Canary bool   // Took: it is the first, watched before others follow
	Death  Death  // Died
}

// trial is one process on probation.
type trial struct {
	code   []Span
	until  time.Time
	canary bool
}

// suspicion is one death that nothing explains.
type suspicion struct {
	at   time.Time
	text string
}

// state is what is known of one patch: who is on probation and what speaks
// against it. Reason is empty until it is guilty; that is for good.
//
// A patch that proved itself is accepted: processes that take it later are not on
// probation. Else any user could have it taken off everywhere, at any time, by
// having a process of their own die in its code.
type state struct {
	first    time.Time // when the first process took it
	trials   map[int]*trial
	suspects []suspicion
	reason   string
}

// step says what follows from an event, and keeps it in s. Probation is how long
// a process counts after it took the patch, and a suspicion after it arose.
func (s *state) step(e *Event, now time.Time, probation time.Duration) {
	if s.trials == nil {
		s.trials = map[int]*trial{}
	}
	t := s.trials[e.PID]
	if t != nil && now.After(t.until) {
		t = nil
	}
	switch e.Kind {
	case Took:
		if s.first.IsZero() {
			s.first = now
		}
		if now.After(s.first.Add(probation)) {
			return
		}
		for pid, old := range s.trials {
			if now.After(old.until) {
				delete(s.trials, pid)
			}
		}
		s.try(e.PID, &trial{e.Code, now.Add(probation), e.Canary})
	case Forked:
		if t != nil {
			s.try(e.Child, t)
		}
	case Left, Died:
		delete(s.trials, e.PID)
		if t != nil && e.Kind == Died {
			s.judge(t, &e.Death, now, probation)
		}
	}
}

func (s *state) try(pid int, t *trial) {
	if len(s.trials) < maxProbation || s.trials[pid] != nil {
		s.trials[pid] = t
	}
}

// judge weighs the death of a process on probation.
func (s *state) judge(t *trial, d *Death, now time.Time, probation time.Duration) {
	if s.reason != "" || !d.crash() && !(d.Unsure && t.canary) {
		return
	}
	text := "process " + strconv.Itoa(d.PID)
	switch {
	case d.crash() && t.holds(d.IP):
		s.reason = text + " died in the patch's code (" + signalName(d.Signal) + ")"
		return
	case d.crash():
		text += " died by " + signalName(d.Signal)
	default:
		text += " ended right afterwards"
	}
	s.suspects = slices.DeleteFunc(s.suspects, func(old suspicion) bool { return now.Sub(old.at) > probation })
	if len(s.suspects)+1 >= maxSuspects {
		s.reason = "soon after they took the patch, and with nothing else to blame, "
		for _, one := range s.suspects {
			s.reason += one.text + " and "
		}
		s.reason += text
	}
	s.suspects = append(s.suspects, suspicion{now, text})
}

// holds reports whether an address lies in the patch's code. 0 is nowhere.
func (t *trial) holds(ip uint64) bool {
	for _, c := range t.code {
		if ip != 0 && ip >= c.From && ip < c.To {
			return true
		}
	}
	return false
}
