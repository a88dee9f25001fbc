package guard

import (
	"testing"
	"time"
)

func TestStep(t *testing.T) {
	const probation = time.Minute
	code := []Span{{0x1000, 0x2000}}
	took := func(pid int) Event { return Event{Kind: Took, PID: pid, Code: code} }
	canary := func(pid int) Event { return Event{Kind: Took, PID: pid, Code: code, Canary: true} }
	died := func(pid, signal int, ip uint64) Event {
		return Event{Kind: Died, PID: pid, Death: Death{PID: pid, Signal: signal, IP: ip}}
	}
	unsure := func(pid int) Event {
		return Event{Kind: Died, PID: pid, Death: Death{PID: pid, Unsure: true}}
	}
	type at struct {
		after time.Duration
		e     Event
	}
	for name, test := range map[string]struct {
		events []at
		guilty bool
	}{
		"in the patch's code":              {[]at{{0, took(1)}, {time.Second, died(1, sigSEGV, 0x1800)}}, true},
		"its first byte":                   {[]at{{0, took(1)}, {0, died(1, sigILL, 0x1000)}}, true},
		"the byte behind it":               {[]at{{0, took(1)}, {0, died(1, sigILL, 0x2000)}}, false},
		"elsewhere, once":                  {[]at{{0, took(1)}, {0, died(1, sigSEGV, 0x9000)}}, false},
		"elsewhere, twice":                 {[]at{{0, took(1)}, {0, took(2)}, {0, died(1, sigSEGV, 0x9000)}, {0, died(2, sigBUS, 0)}}, true},
		"nobody knows where, twice":        {[]at{{0, took(1)}, {0, took(2)}, {0, died(1, sigABRT, 0)}, {0, died(2, sigFPE, 0)}}, true},
		"twice, far apart":                 {[]at{{0, took(1)}, {0, died(1, sigABRT, 0)}, {time.Minute, took(2)}, {time.Second, died(2, sigABRT, 0)}}, false},
		"ended well":                       {[]at{{0, took(1)}, {0, took(2)}, {0, died(1, 0, 0)}, {0, died(2, 0, 0)}}, false},
		"killed":                           {[]at{{0, took(1)}, {0, took(2)}, {0, died(1, 9, 0x1800)}, {0, died(2, 15, 0x1800)}}, false},
		"after probation":                  {[]at{{0, took(1)}, {2 * time.Minute, died(1, sigSEGV, 0x1800)}}, false},
		"taken after it was accepted":      {[]at{{0, took(1)}, {2 * time.Minute, took(2)}, {time.Second, died(2, sigSEGV, 0x1800)}}, false},
		"never patched":                    {[]at{{0, took(1)}, {0, died(2, sigSEGV, 0x1800)}}, false},
		"the same death told twice":        {[]at{{0, took(1)}, {0, died(1, sigABRT, 0)}, {0, died(1, sigABRT, 0)}}, false},
		"another program by then":          {[]at{{0, took(1)}, {0, Event{Kind: Left, PID: 1}}, {0, died(1, sigSEGV, 0x1800)}}, false},
		"a child":                          {[]at{{0, took(1)}, {0, Event{Kind: Forked, PID: 1, Child: 7}}, {0, died(7, sigSEGV, 0x1800)}}, true},
		"a child of somebody else":         {[]at{{0, took(1)}, {0, Event{Kind: Forked, PID: 3, Child: 7}}, {0, died(7, sigSEGV, 0x1800)}}, false},
		"two canaries, nobody knows how":   {[]at{{0, canary(1)}, {0, unsure(1)}, {0, canary(2)}, {0, unsure(2)}}, true},
		"one canary, nobody knows how":     {[]at{{0, canary(1)}, {0, unsure(1)}}, false},
		"two others, nobody knows how":     {[]at{{0, took(1)}, {0, took(2)}, {0, unsure(1)}, {0, unsure(2)}}, false},
		"two canaries that ended well":     {[]at{{0, canary(1)}, {0, died(1, 0, 0)}, {0, canary(2)}, {0, died(2, 0, 0)}}, false},
		"guilty stays guilty":              {[]at{{0, took(1)}, {0, died(1, sigSEGV, 0x1800)}, {time.Hour, took(2)}, {0, died(2, 0, 0)}}, true},
		"address 0 is nowhere, even there": {[]at{{0, Event{Kind: Took, PID: 1, Code: []Span{{0, 0x2000}}}}, {0, died(1, sigSEGV, 0)}}, false},
	} {
		var s state
		now := time.Unix(1000, 0)
		for _, one := range test.events {
			now = now.Add(one.after)
			s.step(&one.e, now, probation)
		}
		if got := s.reason != ""; got != test.guilty {
			t.Errorf("%s: guilty %v (%q), want %v", name, got, s.reason, test.guilty)
		}
	}
}

// Evidence of one death comes in any order, and from another thread than the
// one that the process is named after.
func TestEvidenceInAnyOrder(t *testing.T) {
	a := Artifact{1}
	code := []Span{{0x1000, 0x2000}}
	for name, tell := range map[string][]func(g *Guard){
		"log first":      {func(g *Guard) { g.Took(a, 10, code, false) }, func(g *Guard) { g.Fault(12, 0x1500) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 10) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 12) }},
		"log last":       {func(g *Guard) { g.Took(a, 10, code, false) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 12) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 10) }, func(g *Guard) { g.Fault(12, 0x1500) }},
		"log in between": {func(g *Guard) { g.Took(a, 10, code, false) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 12) }, func(g *Guard) { g.Fault(12, 0x1500) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 10) }},
		"patch last":     {func(g *Guard) { g.Fault(10, 0x1500) }, func(g *Guard) { g.Exited(Death{PID: 10, Signal: sigSEGV}, 10) }, func(g *Guard) { g.Took(a, 10, code, false) }},
	} {
		g := New(time.Minute)
		g.ReadsLog(true)
		for _, f := range tell {
			f(g)
		}
		select {
		case <-g.Convicted():
		case <-time.After(10 * time.Second):
			t.Errorf("%s: not convicted", name)
		}
		if g.Guilty(a) == "" {
			t.Errorf("%s: not guilty", name)
		}
	}
	g := New(time.Minute)
	g.ReadsLog(true)
	g.Took(a, 10, code, false)
	g.Took(Artifact{2}, 10, []Span{{0x8000, 0x9000}}, false)
	g.Fault(10, 0x1500)
	g.Exited(Death{PID: 10, Signal: sigSEGV}, 10)
	if g.Guilty(a) == "" || g.Guilty(Artifact{2}) != "" {
		t.Error("want the patch guilty in whose code it was, and no other")
	}
}

// A fault alone, which anybody who may write to the log could claim, and a
// process number that is used again convict nobody.
func TestNotConvicted(t *testing.T) {
	a := Artifact{1}
	code := []Span{{0x1000, 0x2000}}
	g := New(time.Minute)
	g.ReadsLog(true)
	g.Took(a, 10, code, false)
	g.Fault(10, 0x1500)
	g.Exited(Death{PID: 10, Signal: 0}, 10)
	g.Exited(Death{PID: 11, Signal: sigSEGV}, 11)
	g.Fault(11, 0x1500)
	g.Forked(1, 11)
	g.Took(a, 11, code, false)
	if r := g.Guilty(a); r != "" {
		t.Errorf("guilty: %s", r)
	}
}

// Without the kernel's log nothing is waited for.
func TestWithoutLog(t *testing.T) {
	a := Artifact{1}
	g := New(time.Minute)
	for _, pid := range []int{10, 20} {
		g.Took(a, pid, []Span{{1, 2}}, false)
		g.Ended(Death{PID: pid, Signal: sigSEGV})
	}
	if g.Guilty(a) == "" {
		t.Error("two crashes that nothing explains are not enough")
	}
}
