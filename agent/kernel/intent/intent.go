// Package intent holds the rules by which a server protects itself from a kernel
// patch that brings it down: what is intended is written down before it is done,
// stays written until the patch has proved itself, and whoever finds it after a
// crash does not try again.
//
// It is a pure state machine over one record. Whoever drives it makes each
// record durable before he acts on the order that came with it. It must not do
// input or output or know the time by itself.
package intent

// Phase is how far a patch is.
type Phase string

// The phases. A patch that is not in one of the others is not in doubt.
const (
	Idle      Phase = ""
	Loading   Phase = "loading"   // the kernel may be given it at any moment, or has it just now
	Probation Phase = "probation" // it is in force and has to prove itself
	Stopped   Phase = "stopped"   // on probation, when the system was shut down in good order
)

// MaxStrikes is how many crashes end all loading until a person allows it again.
const MaxStrikes = 2

// Patch names what is loaded.
type Patch struct {
	SHA256   string // of the artifact, lower-case hexadecimal
	Path     string // target path in the repository
	BuildID  string // of the kernel
	Level    int64
	Module   string // its name
	ModuleID string // its own build-id
}

// Record is what is written down.
type Record struct {
	Patch
	Phase   Phase
	BootID  string  // of the boot in which the phase began
	Since   int64   // seconds from the start of that boot to the start of the phase
	Strikes int64   // crashes, one after the other, that a patch in doubt did not survive
	Before  *Record // while Loading: the patch on probation that this one is to replace
}

// Halted reports whether nothing may be loaded until a person allows it again.
func (r *Record) Halted() bool { return r.Strikes >= MaxStrikes }

// Kind says what happened.
type Kind int

// What can happen.
const (
	Started   Kind = iota + 1 // the agent started: Kernel says what the kernel has
	Begin                     // Patch is to be loaded
	Loaded                    // the patch in Loading is in force
	NotLoaded                 // it is not, and the kernel has nothing of it
	Sick                      // the kernel shows a symptom
	Tick                      // time has passed
	Stopping                  // the system, or the agent, is shut down in good order
	TakenOff                  // the patch was taken off on purpose
	Cleared                   // a person allows loading again
)

// Kernel is what the kernel has of the patch in the record.
type Kernel int

// What it can have.
const (
	Nothing Kernel = iota
	InForce
	Stuck // it will never be given back
)

// Event is what happened in the boot BootID.
type Event struct {
	Kind   Kind
	BootID string
	Patch  Patch  // Begin
	Kernel Kernel // Started
}

// Order says what has to be done once the record is durable.
type Order int

// The orders.
const (
	None    Order = iota
	Load          // give the patch to the kernel
	Refuse        // do not
	Accept        // the patch has proved itself
	Condemn       // the patch of the record before the step goes into quarantine, and off if it is in force
)

// Step says what follows from an event. now is in seconds since the boot
// started, probation how many of them a patch has to prove itself.
func Step(r Record, e Event, now, probation int64) (Record, Order) {
	idle := Record{Strikes: r.Strikes}
	switch e.Kind {
	case Started:
		return started(r, e, now)
	case Begin:
		if r.Halted() || r.Phase == Loading {
			return r, Refuse
		}
		next := Record{Patch: e.Patch, Phase: Loading, BootID: e.BootID, Since: now, Strikes: r.Strikes}
		if r.Phase == Probation {
			next.Before = &r
		}
		return next, Load
	case Loaded:
		if r.Phase == Loading {
			r.Phase, r.Since, r.Before = Probation, now, nil
		}
	case NotLoaded:
		if r.Phase == Loading {
			return r.withdrawn(), None
		}
	case Sick:
		switch r.Phase {
		case Loading:
			return r.withdrawn(), Condemn
		case Probation:
			return idle, Condemn
		}
	case Tick:
		if r.Phase == Probation && now-r.Since >= probation {
			if !r.Halted() {
				idle.Strikes = 0
			}
			return idle, Accept
		}
	case Stopping:
		if r.Phase == Probation {
			r.Phase = Stopped
		}
	case TakenOff:
		if r.Phase != Loading {
			return idle, None
		}
	case Cleared:
		r.Strikes = 0
	}
	return r, None
}

// withdrawn is what remains when the patch in Loading did not come into force.
func (r Record) withdrawn() Record {
	if r.Before != nil {
		before := *r.Before
		before.Strikes = r.Strikes
		return before
	}
	return Record{Strikes: r.Strikes}
}

// started compares the record with the boot that the agent finds itself in.
func started(r Record, e Event, now int64) (Record, Order) {
	idle := Record{Strikes: r.Strikes}
	if r.BootID != e.BootID {
		switch r.Phase {
		case Loading, Probation:
			idle.Strikes++
			return idle, Condemn
		}
		return idle, None // shut down in good order: the patch has not proved itself, nor failed
	}
	switch {
	case r.Phase == Idle:
		return r, None
	case e.Kernel == Stuck:
		return idle, Condemn
	case r.Phase == Loading && e.Kernel == InForce:
		r.Phase, r.Since, r.Before = Probation, now, nil
	case r.Phase == Loading:
		return r.withdrawn(), None
	case e.Kernel == Nothing:
		return idle, None
	default:
		r.Phase = Probation
	}
	return r, None
}
