package kernel

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

// Errors of the crash guard.
var (
	ErrHalted     = errors.New("this server went down twice, one time after the other, with a live patch that had not proved itself; no kernel patch is loaded any more: find out why, then allow it again")
	ErrQuarantine = errors.New("this live patch is in quarantine on this server; nothing was loaded: use a newer one")
	ErrUnderWay   = errors.New("another live patch is being loaded; nothing was loaded: it is tried again")
)

// Probation is how long a patch has to prove itself.
const Probation = 10 * time.Minute

// maxReason bounds why a patch went into quarantine, in bytes.
const maxReason = 500

// Keeper loads patches in such a way that one which brings the server down is
// not loaded a second time. It must be told of the agent's start and end, and
// Run must be running while patches are loaded. Its methods may be used
// concurrently.
type Keeper struct {
	Engine    *Engine
	Store     *state.Store
	Probation time.Duration // 0 is ten minutes
	Now       func() time.Time
	Log       func(string)
	Accepted  func(intent.Patch)     // the patch has proved itself; nil when nobody wants to know
	Condemned func(wire.Quarantined) // the patch went into quarantine; the same

	mu sync.Mutex
}

// Start compares the record with the boot that it finds itself in. Call it once,
// before anything is loaded. A patch that it finds in doubt goes into quarantine.
func (k *Keeper) Start(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, err := Running("/")
	if err != nil {
		return err
	}
	r := k.Store.Intent()
	what := intent.Nothing
	if r.Phase != intent.Idle && r.Module != "" {
		switch now, err := readPhase(r.Module); {
		case err != nil:
			return err
		case initState(r.Module) == "coming":
			what = intent.Stuck
		case now.there && moduleID(r.Module) == patch.BuildID(r.ModuleID):
			what = intent.InForce
		}
	}
	reason := "the server went down while the live patch had not proved itself"
	if r.BootID == id.BootID {
		reason = "the kernel never finished loading it"
	}
	return k.step(ctx, r, intent.Event{Kind: intent.Started, BootID: id.BootID, Kernel: what}, reason)
}

// Apply brings a patch into force and puts it on probation. The intent is durable
// before the kernel is given anything. path is the patch's name in the repository.
func (k *Keeper) Apply(ctx context.Context, p Patch, path string) (Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	result, begun, err := k.attempt(ctx, p, path)
	if !begun {
		return result, err
	}
	r := k.Store.Intent()
	e, reason := intent.Event{Kind: intent.Loaded, BootID: r.BootID}, ""
	switch {
	case errors.Is(err, ErrOops), errors.Is(err, ErrHung):
		e.Kind, reason = intent.Sick, err.Error()
	case errors.Is(err, ErrStuck): // partly in force: it stays in doubt
	case err != nil:
		e.Kind = intent.NotLoaded
	}
	return result, errors.Join(err, k.step(context.WithoutCancel(ctx), r, e, reason))
}

// attempt applies the patch. It has begun when the record is in Loading, which it
// is before the kernel is given anything. The caller holds k.mu.
func (k *Keeper) attempt(ctx context.Context, p Patch, path string) (result Result, begun bool, err error) {
	k.Engine.mu.Lock()
	defer k.Engine.mu.Unlock()
	start := time.Now()
	m, id, err := k.Engine.admit(p)
	result.Name = m.Name
	if err != nil {
		return result, false, err
	}
	what := intent.Patch{SHA256: hextext.Encode(p.SHA256[:]), Path: path, BuildID: string(p.Target.BuildID), Level: p.Level, Module: m.Name, ModuleID: string(m.BuildID)}
	if _, barred := k.Store.InQuarantine(what.SHA256); barred {
		return result, false, &Error{Kind: ErrQuarantine}
	}
	now, err := readPhase(m.Name)
	if err != nil {
		return result, false, err
	}
	if !now.there || !now.enabled || now.switching { // else nothing will be loaded
		r, order := intent.Step(k.Store.Intent(), intent.Event{Kind: intent.Begin, BootID: id.BootID, Patch: what}, uptime(), k.seconds())
		switch {
		case order == intent.Refuse && r.Halted():
			return result, false, &Error{Kind: ErrHalted}
		case order == intent.Refuse:
			return result, false, &Error{Kind: ErrUnderWay}
		}
		if err := k.Store.SetIntent(r); err != nil {
			return result, false, err
		}
		begun = true
	}
	result, err = k.Engine.apply(ctx, p, &m, &id, start)
	return result, begun, err
}

// Revert takes a patch off, which ends its probation.
func (k *Keeper) Revert(ctx context.Context, p Patch) (Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	result, err := k.Engine.Revert(ctx, p)
	if err != nil {
		return result, err
	}
	r := k.Store.Intent()
	if r.SHA256 != hextext.Encode(p.SHA256[:]) {
		return result, nil
	}
	return result, k.step(ctx, r, intent.Event{Kind: intent.TakenOff, BootID: r.BootID}, "")
}

// Stop marks that the agent ends in good order, as it does when the system is
// shut down.
func (k *Keeper) Stop() error { return k.happened(context.Background(), intent.Stopping, "") }

// Clear allows loading again after ErrHalted. A person asks for it.
func (k *Keeper) Clear() error { return k.happened(context.Background(), intent.Cleared, "") }

// Halted reports whether no kernel patch is loaded until Clear.
func (k *Keeper) Halted() bool {
	r := k.Store.Intent()
	return r.Halted()
}

// Run watches the kernel's log and taint while patches are on probation, until
// ctx ends. What tells of a sick kernel convicts the patch: it goes into
// quarantine and off.
func (k *Keeper) Run(ctx context.Context) {
	log := openLog(unix.SEEK_END)
	defer log.close()
	if log < 0 {
		k.Log("the kernel's log cannot be read; a patch on probation is judged by the kernel's taint alone")
	}
	taint := readTaint()
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(log), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(watchEvery/time.Millisecond)); err != nil && err != unix.EINTR {
			k.Log("waiting for the kernel's log: " + err.Error())
			<-ctx.Done()
			return
		}
		reason := ""
		if fds[0].Revents != 0 {
			log.each(func(text string) bool {
				if reason == "" {
					reason = Symptom(text)
				}
				return true
			})
		}
		now := readTaint()
		if reason == "" {
			reason = Tainted(taint, now)
		}
		taint = now
		kind := intent.Tick
		if reason != "" {
			kind = intent.Sick
		}
		if err := k.happened(ctx, kind, reason); err != nil && ctx.Err() == nil {
			k.Log("guarding the kernel patch on probation: " + err.Error())
		}
	}
}

// watchEvery is how often the end of probation and the taint are looked at.
const watchEvery = time.Second

func readTaint() uint64 {
	text, _ := fact("/", "proc/sys/kernel/tainted")
	n, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return n
}

func (k *Keeper) happened(ctx context.Context, kind intent.Kind, reason string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.Store.Intent()
	if r.Phase == intent.Idle && kind != intent.Cleared {
		return nil
	}
	return k.step(ctx, r, intent.Event{Kind: kind, BootID: r.BootID}, reason)
}

// step does what follows from an event. Quarantine is durable before the record
// that called for it goes, so that a crash between them changes nothing. The
// caller holds k.mu.
func (k *Keeper) step(ctx context.Context, r intent.Record, e intent.Event, reason string) error {
	next, order := intent.Step(r, e, uptime(), k.seconds())
	if order == intent.Condemn {
		q := wire.Quarantined{BuildID: r.BuildID, Path: r.Path, Level: r.Level, SHA256: r.SHA256, Reason: reason[:min(len(reason), maxReason)], Time: k.Now().Unix()}
		k.Log(r.Path + " is put into quarantine: " + reason)
		if err := k.Store.Quarantine(q); err != nil && !errors.Is(err, state.ErrQuarantine) {
			return err
		}
		if k.Condemned != nil {
			k.Condemned(q)
		}
		if e.Kind == intent.Sick {
			if _, err := k.Engine.takeOff(ctx, r.Module, patch.BuildID(r.ModuleID)); err != nil {
				k.Log(r.Path + " could not be taken off: " + err.Error())
			}
		}
	}
	if next != r {
		if err := k.Store.SetIntent(next); err != nil {
			return err
		}
	}
	if order == intent.Accept {
		k.Log(r.Path + " has proved itself")
		if k.Accepted != nil {
			k.Accepted(r.Patch)
		}
	}
	return nil
}

func (k *Keeper) seconds() int64 {
	if k.Probation == 0 {
		return int64(Probation / time.Second)
	}
	return int64(k.Probation / time.Second)
}

// uptime returns the seconds since the boot started. No change of the date moves
// them.
func uptime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // Linux has it
	return t.Sec
}
