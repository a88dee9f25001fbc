// Package kernel applies live patches to the running kernel: it compares a
// module with the kernel, loads it, watches the switch to the new functions to
// its end, and takes patches off again. What is true it reads from the kernel
// itself.
//
// Three rules shape it. The kernel compares a module with itself less closely
// than one would think, so this package compares first. An error inside a module
// takes the thread down that loads it, so a short-lived process loads it. And the
// crash that a patch causes may come minutes later, so the intent to load it is
// durable before and stays until it has proved itself (Keeper; the rules are in
// package intent below this one).
//
// The package must not decide whether a patch may be applied (trust does), choose
// patches, or talk to anybody. It writes nothing but the mark of a forced switch
// below RunDir and, through package state, the intent record.
package kernel

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

// Times that are not a matter of policy.
const (
	defaultLoadTime   = time.Minute
	defaultSwitchTime = time.Minute // the kernel itself wakes sleepers after 15 seconds
	reverseTime       = 30 * time.Second
	forceTime         = 10 * time.Second
	unloadTime        = 5 * time.Second
	killTime          = 3 * time.Second // that a killed loader may take to go
	lookEvery         = 250 * time.Millisecond
	firstPause        = 500 * time.Microsecond // between looks at a switch, growing
	lastPause         = 10 * time.Millisecond
)

// Options are what a server's policy may set.
type Options struct {
	RunDir     string        // where the mark of a forced switch is kept; a folder that a restart empties
	LoadTime   time.Duration // that loading may take; 0 is a minute
	SwitchTime time.Duration // that the switch may take before it is taken back; 0 is a minute
	NudgeAfter time.Duration // when sleepers that hold the switch up are stopped and continued; 0 is never
	Force      bool          // a switch that does not end is forced instead of taken back
}

// Engine applies patches, one at a time. Its methods may be used concurrently.
type Engine struct {
	options Options

	mu       sync.Mutex
	prepared *loader
	known    Identity // of the running kernel, once it was read
}

// New returns an engine.
func New(o Options) *Engine {
	if o.LoadTime == 0 {
		o.LoadTime = defaultLoadTime
	}
	if o.SwitchTime == 0 {
		o.SwitchTime = defaultSwitchTime
	}
	return &Engine{options: o}
}

// Patch is a module that was verified, with its identity.
type Patch struct {
	Module []byte
	SHA256 [32]byte // of the artifact that Module came from
	Target patch.Target
	Level  int64
}

// Outcome says what is true after Apply or Revert.
type Outcome string

// The outcomes.
const (
	Patched  Outcome = "patched"  // every task runs the new functions
	Already  Outcome = "already"  // so it was before
	Reverted Outcome = "reverted" // every task runs the old functions, the module is gone
	Absent   Outcome = "absent"   // so it was before
)

// Result is what was done.
type Result struct {
	Outcome  Outcome
	Name     string        // of the module
	Replaced []string      // modules of patches that this one replaced
	Kept     []string      // of these, the ones that could not be unloaded
	Tasks    []Task        // that held the switch up when they were nudged or forced
	Nudged   int           // how many were nudged
	Forced   bool          // the switch was forced: nothing is unloaded until a restart
	Took     time.Duration // from the call until the switch was over
}

// Apply brings a patch into force. It returns when every task runs the new
// functions, or with an *Error when nothing was changed or, as its kind then
// says, something was left behind. A ctx that ends takes the switch back.
func (e *Engine) Apply(ctx context.Context, p Patch) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	start := time.Now()
	m, id, err := e.admit(p)
	if err != nil {
		return Result{Name: m.Name}, err
	}
	return e.apply(ctx, p, &m, &id, start)
}

// admit reads a patch and compares it with the running kernel. The caller holds
// e.mu.
func (e *Engine) admit(p Patch) (m module.Module, id Identity, err error) {
	if m, err = module.Read(p.Module); err != nil {
		return m, id, &Error{Kind: ErrModule, Detail: err.Error()}
	}
	if id, err = e.identity(); err == nil {
		err = id.Admits(&m, p.Target)
	}
	return m, id, err
}

// identity is Running with all but the taint read once: no kernel changes these
// facts but to allow less, and then it refuses by itself. The caller holds e.mu.
func (e *Engine) identity() (Identity, error) {
	if e.known.BuildID == "" {
		id, err := Running("/")
		if err != nil {
			return id, err
		}
		e.known = id
	}
	e.known.Taint = readTaint()
	return e.known, nil
}

// apply brings an admitted patch into force. start is when its time began. The
// caller holds e.mu.
func (e *Engine) apply(ctx context.Context, p Patch, m *module.Module, id *Identity, start time.Time) (Result, error) {
	r := Result{Name: m.Name}
	before, err := loaded()
	if err != nil {
		return r, err
	}
	there, err := e.find(ctx, m, id, before)
	switch {
	case err != nil:
		return r, err
	case there && !find(before, m.Name).Switching:
		r.Outcome, r.Took = Already, time.Since(start)
		return r, nil
	case !there:
		l, err := e.loader()
		if err != nil {
			return r, &Error{Kind: ErrRefused, Detail: err.Error()}
		}
		defer l.end()
		if err := e.load(ctx, l, m, id, p.Module); err != nil {
			return r, err
		}
	}
	if err := e.finish(ctx, id, &r); err != nil {
		return r, err
	}
	r.Outcome, r.Took = Patched, time.Since(start)
	for _, l := range before {
		if l.Name == m.Name {
			continue
		}
		if now, err := readPhase(l.Name); err == nil && now.there && now.enabled {
			continue // patches that do not replace live beside each other
		}
		r.Replaced = append(r.Replaced, l.Name)
		if r.Forced || e.forced(id) || unload(l.Name) != nil {
			r.Kept = append(r.Kept, l.Name)
		}
	}
	return r, nil
}

// find looks for the patch in the kernel: by its name and by its module's own
// build-id, since anybody can give a module a name. It clears away what an
// earlier patch of that name left behind.
func (e *Engine) find(ctx context.Context, m *module.Module, id *Identity, list []Loaded) (there bool, err error) {
	for _, dep := range m.Depends {
		if _, err := os.Stat("/sys/module/" + dep); err != nil {
			return false, &Error{Kind: ErrDependency, Detail: "module " + dep}
		}
	}
	l := find(list, m.Name)
	same := m.BuildID != "" && moduleID(m.Name) == m.BuildID
	if l != nil {
		switch {
		case !same:
			return false, &Error{Kind: ErrNameTaken, Detail: "module " + m.Name}
		case l.Enabled:
			return true, nil
		case l.Switching: // being taken off: the kernel can turn round
			return true, set(l.Name, "enabled", "1")
		}
		if _, over, err := settle(ctx, l.Name, time.Now().Add(unloadTime)); err != nil || !over {
			return false, errors.Join(&Error{Kind: ErrBusy, Detail: "module " + m.Name + " is being taken off"}, err)
		}
	}
	for _, other := range list {
		if other.Switching {
			return false, &Error{Kind: ErrBusy, Detail: "module " + other.Name}
		}
	}
	switch initState(m.Name) {
	case "":
		return false, nil
	case "coming":
		return false, &Error{Kind: ErrRebootNeeded, Detail: "module " + m.Name}
	}
	switch {
	case !same:
		return false, &Error{Kind: ErrNameTaken, Detail: "module " + m.Name}
	case e.forced(id):
		return false, &Error{Kind: ErrForced}
	}
	return false, unload(m.Name)
}

func find(list []Loaded, name string) *Loaded {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// load loads the module. Where the loader did not end well, the kernel is asked
// what became of it.
func (e *Engine) load(ctx context.Context, l *loader, m *module.Module, id *Identity, b []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := witness{log: openLog(unix.SEEK_END), name: m.Name, taint: id.Taint}
	defer w.log.close()
	end := l.run(b, e.options.LoadTime, w.failed)
	if end.number != 0 {
		return refusal(end.number, w.about())
	}
	if end.err == nil {
		return nil
	}
	switch state := initState(m.Name); {
	case state == "live":
		return nil // it was slow, or the kernel failed somewhere else
	case end.oops:
		return &Error{Kind: ErrOops, Detail: "module " + m.Name + " is left in state " + strconv.Quote(state) + "; " + w.about()}
	case state == "coming":
		return &Error{Kind: ErrHung, Detail: "module " + m.Name}
	}
	return &Error{Kind: ErrRefused, Detail: end.err.Error()}
}

// finish waits for the end of the switch, and ends it in the way that the policy
// allows when it does not end by itself.
func (e *Engine) finish(ctx context.Context, id *Identity, r *Result) error {
	end := time.Now().Add(e.options.SwitchTime)
	until := end
	if after := e.options.NudgeAfter; after > 0 && after < e.options.SwitchTime {
		until = time.Now().Add(after)
	}
	p, over, err := settle(ctx, r.Name, until)
	if err == nil && !over && until.Before(end) {
		r.Tasks = stalled(newCode)
		r.Nudged = nudge(r.Tasks)
		p, over, err = settle(ctx, r.Name, end)
	}
	if over && err == nil {
		if !p.there {
			return &Error{Kind: ErrRefused, Detail: "somebody else took it off meanwhile"}
		}
		return nil
	}
	if over {
		return err
	}
	tasks := stalled(newCode)
	if err == nil && e.options.Force {
		if err := e.force(id, r.Name); err != nil {
			return err
		}
		r.Tasks, r.Forced = tasks, true
		return nil
	}
	// Time must pass for this, whatever becomes of the caller.
	return errors.Join(err, e.takeBack(context.WithoutCancel(ctx), r.Name, tasks))
}

// takeBack reverses a switch and removes the module.
func (e *Engine) takeBack(ctx context.Context, name string, tasks []Task) error {
	err := set(name, "enabled", "0")
	if err == nil {
		var p phase
		if p, _, err = settle(ctx, name, time.Now().Add(reverseTime)); err == nil && p.there {
			err = &Error{Kind: ErrStuck, Tasks: tasks}
		}
	}
	if err != nil {
		return errors.Join(&Error{Kind: ErrStuck, Tasks: tasks}, err)
	}
	return errors.Join(&Error{Kind: ErrStalled, Tasks: tasks}, unload(name))
}

// Status returns the live patches that the kernel has, whoever loaded them.
func (e *Engine) Status() ([]Loaded, error) { return loaded() }
