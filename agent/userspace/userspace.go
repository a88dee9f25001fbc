// Package userspace applies live patches to running processes: it finds every
// process that has one exact library mapped, places a patch's image near that
// library and redirects the old functions in one short stop of all threads.
// It takes patches off again, and it reads from the processes themselves what
// is true in them.
//
// A target is whatever maps content with the patch's build-id; names and paths
// decide nothing, and nothing that a target controls is run, loaded or
// believed: files and memory of targets are read as hostile input, within
// limits. A patch changes a process wholly or not at all, and no page is ever
// writable and executable. The package must not decide whether a patch may be
// applied (trust does), keep state on disk, or talk to anybody.
package userspace

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// Limits on what is read from a target. A target that passes one is reported
// as skipped or failed and left alone.
const (
	maxMapsBytes  = 64 << 20 // of /proc/PID/maps
	maxMappings   = 1 << 18  // lines of it
	maxThreads    = 8192     // threads of one process
	maxStackBytes = 32 << 20 // of one thread's stack that is in use
	maxProcesses  = 1 << 20  // processes of the machine
	maxStuck      = 16       // files and processes that did not answer and still hold a thread
)

// Errors of the engine as a whole; what happened to one process is in its Result.
var (
	ErrUnsupported = errors.New("this processor architecture is not supported; nothing was changed")
	ErrPatch       = errors.New("the patch is not one that can be applied; nothing was changed")
	ErrPermission  = errors.New("the kernel does not let the agent look into other processes; nothing was changed; run it as root with CAP_SYS_ADMIN and CAP_SYS_PTRACE")
)

// Patch is an image that passed its own Check, with its identity.
type Patch struct {
	File   *image.File
	SHA256 [32]byte // of the artifact that File was decoded from
	Level  int64    // counts up per build-id; a level holds all fixes of the levels below it
}

// Process names one process that maps a library. A process that ends is never
// confused with a later one of the same number: Start differs.
type Process struct {
	PID     int
	Start   uint64 // clock ticks since boot
	Command string // for people; the process may choose it

	files []fileKey // of the mapped files with the build-id; where to look first
}

// Outcome says what is true for one process.
type Outcome string

// The outcomes.
const (
	Patched   Outcome = "patched"   // the patch was switched on (Apply) or is on (Status)
	Already   Outcome = "already"   // this patch or a newer level of it was on before
	Reverted  Outcome = "reverted"  // the patch was taken off
	Unpatched Outcome = "unpatched" // the patch is not on
	Skipped   Outcome = "skipped"   // left alone on purpose, see Reason
	Failed    Outcome = "failed"    // it could not be done and nothing was changed, see Reason
	Ended     Outcome = "ended"     // the process ended or started another program meanwhile
)

// Live reports whether a process with this outcome runs the patched code.
func (o Outcome) Live() bool { return o == Patched || o == Already }

// Result is the truth about one process.
type Result struct {
	PID     int
	Start   uint64
	Command string
	Outcome Outcome
	Reason  string        // for people; empty when the outcome says it all
	Threads int           // that were stopped for the switch; 0 when there was none
	Stop    time.Duration // all threads stood still: first interrupt to last detach, in all tries together
	Map     time.Duration // before that, one thread stood still to map the image's pages, in all tries together
	Tries   int           // attempts that it took; busy processes are tried again

	code []guard.Span // where the patch's code lies in it, when it was switched on
}

// Options tune an Engine. A zero field takes the default.
type Options struct {
	StopWait time.Duration // longest wait for all threads to stop; default 50 ms
	Patience time.Duration // how long a busy process is tried again; default 2 s
	Watch    time.Duration // how long the first process is watched before the others follow; default 100 ms, negative for none
	Guard    *guard.Guard  // judges processes that end after they took a patch; default one of its own
	Children bool          // patch children of this process too; nothing may wait for them meanwhile
	Answer   time.Duration // how long a file or a process may keep one attempt waiting; default 5 s
}

// Engine applies, reverts and reads live patches. It is safe for concurrent
// use; calls run one after the other.
type Engine struct {
	opts Options
	turn chan struct{} // holds one token: whose turn it is

	mu      sync.Mutex
	stuck   int                 // goroutines that wait for a file or a process
	answers map[uint64]response // by device of files

	where map[fileKey]sighting // where files with a patch's build-id were last seen mapped
}

// response says whether a device answered in time when it was asked last.
type response struct {
	came bool
	at   time.Time
}

// New returns an engine.
func New(o Options) *Engine {
	fill := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	fill(&o.StopWait, 50*time.Millisecond)
	fill(&o.Patience, 2*time.Second)
	fill(&o.Watch, 100*time.Millisecond)
	fill(&o.Answer, 5*time.Second)
	if o.Guard == nil {
		o.Guard = guard.New(0)
	}
	return &Engine{opts: o, turn: make(chan struct{}, 1), answers: make(map[uint64]response), where: make(map[fileKey]sighting)}
}

// take waits until no other call runs. The caller must call the returned
// function when it is done.
func (e *Engine) take(ctx context.Context) (func(), error) {
	select {
	case e.turn <- struct{}{}:
		return func() { <-e.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// check refuses what Apply, Revert and Status cannot work with.
func (p *Patch) check() error {
	if !supported {
		return ErrUnsupported
	}
	if p.File == nil {
		return &patchError{"it has no image"}
	}
	if err := p.File.Check(); err != nil {
		return &patchError{err.Error()}
	}
	if p.File.Arch != arch {
		return &patchError{"it is for the architecture " + p.File.Arch}
	}
	if p.Level < 1 || p.Level > patch.MaxLevel {
		return &patchError{"its level " + strconv.FormatInt(p.Level, 10) + " is out of range"}
	}
	return nil
}

// patchError says why a patch was refused as a whole.
type patchError struct{ reason string }

func (e *patchError) Error() string { return ErrPatch.Error() + ": " + e.reason }

// Unwrap returns ErrPatch.
func (e *patchError) Unwrap() error { return ErrPatch }
