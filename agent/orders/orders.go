// Package orders carries out the director's orders on this system: one signed
// manifest goes in, one signed report comes out. It also keeps admitted patches
// in force as processes come and go.
//
// It is where all the rules meet: what package trust accepts from both chains,
// what the server's own policy allows, the level below which nothing goes, and
// what the engine finds in the processes. An order that any of them refuses
// changes nothing and is reported with the reason. It must not make
// connections, and it believes nothing that the platform says unless it is
// signed.
package orders

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/scanner"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// Executor carries out orders, one at a time. All fields must be set before
// use; its methods may be used concurrently.
type Executor struct {
	Store      *state.Store
	Engine     *userspace.Engine
	Kernel     *kernel.Keeper // its Store is this one; nil where the kernel cannot be patched
	Guard      *guard.Guard   // the engine's
	Scanner    scanner.Runner
	PolicyPath string           // see package policy
	RunDir     string           // see package localfiles
	BootID     string           // names this boot
	Now        func() time.Time // the system's clock
	Log        func(string)     // one line for the system's administrator

	turn sync.Mutex // held by the order that is carried out

	// mu guards patches in store and processes, and what is known of them. It is
	// never held while something is waited for that is outside of this system:
	// a slow platform or scanner must not keep new processes without patches.
	mu       sync.Mutex
	verified map[evidence]admitted
	truth    []standing // of the last round
}

// refusal is why an order was not carried out. Class goes into the report.
type refusal struct {
	class string
	err   error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func refused(class, text string) error { return &refusal{class, errors.New(text)} }

// The classes that are not package trust's.
const (
	classPolicy = "policy"
	classImage  = "image"
	classTarget = "build-id"
	classKind   = "kind"
	classEngine = "engine"
	classScan   = "scanner"
	classSource = "platform"
	classLocal  = "agent"

	classQuarantine = "quarantine"
)

// order is one order on its way to its report.
type order struct {
	x        *Executor
	platform Platform
	envelope []byte
	keys     state.Keys
	enrolled state.Enrolment
	manifest *trust.Manifest
	report   wire.Report
	changed  bool // processes may differ from before: a failure must not deny it
}

// Execute carries out the order in envelope and stores its sealed report, which
// is durable when Execute returns nil. An error means that there is no report:
// the connection was lost before anything was changed, or the state folder
// cannot be written. The platform then gives the order again.
func (x *Executor) Execute(ctx context.Context, p Platform, envelope []byte) error {
	x.turn.Lock()
	defer x.turn.Unlock()
	if err := x.Store.ResultRoom(); err != nil {
		return err
	}
	o := order{x: x, platform: p, envelope: envelope}
	sum := sha256.Sum256(envelope)
	o.report = wire.Report{Manifest: hextext.Encode(sum[:]), BootID: x.BootID}
	if err := o.identify(); err != nil {
		return err // nobody could sign a report
	}
	err := o.begin(ctx)
	if err == nil {
		x.Log("order " + o.manifest.Task + ": " + string(o.manifest.Action) + " " + o.manifest.Path)
		err = o.carryOut(ctx)
	}
	if err != nil {
		if lost(ctx, err) {
			return err
		}
		o.refuse(ctx, err)
	}
	return o.finish(ctx)
}

// identify takes the keys and the name of this system.
func (o *order) identify() (err error) {
	if o.keys, err = o.x.Store.Keys(); err != nil {
		return err
	}
	o.enrolled, err = o.x.Store.Enrolment()
	o.report.SystemID = o.enrolled.SystemID
	return err
}

// begin decides whether the order is one for this system and uses its counter.
func (o *order) begin(ctx context.Context) error {
	x := o.x
	o.label()
	root, err := x.refreshDirectorRoot(ctx, o.platform)
	if err != nil {
		return err
	}
	m, err := trust.VerifyManifest(o.envelope, root, o.identity(), x.Store.LastCounter(), x.Now())
	if err != nil {
		return err
	}
	// From here on the order is used up, whatever happens.
	if err := x.Store.UseCounter(m.Counter); err != nil {
		return err
	}
	o.manifest = m
	return nil
}

// label names the report after what the order says of itself, before anything
// of it is believed, so that a refusal can be told apart from others.
func (o *order) label() {
	e, err := trust.ParseEnvelope(o.envelope, trust.MaxManifest)
	if err != nil {
		return
	}
	m, err := trust.ParseManifest(e.Signed)
	if err != nil {
		return
	}
	o.report.Task, o.report.Action, o.report.Path = m.Task, string(m.Action), m.Path
}

func (o *order) identity() trust.Identity {
	return trust.Identity{SystemID: o.enrolled.SystemID, KeyHash: trust.HashKey(o.keys.IdentityPublic())}
}

// carryOut does what the verified order says.
func (o *order) carryOut(ctx context.Context) error {
	allowed, err := policy.Load(o.x.PolicyPath)
	if err != nil {
		return &refusal{classPolicy, err}
	}
	switch o.manifest.Action {
	case trust.Apply:
		if err := allowed.AllowsPatch(o.manifest.Path, o.manifest.BuildID); err != nil {
			return &refusal{classPolicy, err}
		}
		return o.apply(ctx)
	case trust.Revert:
		return o.revert(ctx)
	case trust.Scan:
		if err := allowed.AllowsScanner(o.manifest.Scanner); err != nil {
			return &refusal{classPolicy, err}
		}
		return o.scan(ctx)
	}
	return refused(classKind, "this agent does not know the action of the order; nothing was done")
}

// refuse writes into the report why the order was not carried out, and raises
// the alarm when a fault does not explain it.
func (o *order) refuse(ctx context.Context, err error) {
	class, outcome := trust.Class(err), wire.Refused
	var r *refusal
	var answer *wire.Error
	switch {
	case errors.As(err, &r):
		class = r.class
	case errors.As(err, &answer):
		class, outcome = classSource, wire.Failed
	case class == "other":
		class, outcome = classLocal, wire.Failed
	}
	o.report.Outcome, o.report.Reason = outcome, class
	o.report.Text = err.Error()
	switch {
	case o.changed:
		o.report.Outcome = wire.Partial
		o.report.Text += "; something may have been changed, see what is in force: correct the cause and give the order again"
	case !strings.Contains(o.report.Text, "nothing was changed"):
		o.report.Text += "; nothing was changed"
	}
	o.report.Text = clip(o.report.Text, wire.MaxMessage)
	o.x.Log("order " + o.report.Task + " refused: " + class + ": " + o.report.Text)
	if attacks[class] {
		o.platform.alarm(ctx, wire.Attack{Kind: class, Text: o.report.Text})
	}
}

// attacks lists the classes that mean more than a fault.
var attacks = map[string]bool{
	"malformed": true, "threshold": true, "rollback": true, "version": true, "hash": true, "length": true,
	"wrong-system": true, "replay": true, "disagree": true, "scheme": true, classTarget: true, classImage: true,
}

// finish seals the report and keeps it until the platform acknowledges it.
func (o *order) finish(ctx context.Context) error {
	if err := o.x.tell(ctx); err != nil {
		o.x.Log(err.Error())
	}
	o.report.Applied = o.x.Applied()
	o.report.Time = o.x.Now().Unix()
	sealed := o.seal()
	if len(sealed) > wire.MaxReport && len(o.report.Scan) > 0 {
		o.report.Scan = nil
		o.report.Outcome, o.report.Reason = wire.Failed, classScan
		o.report.Text = "the scanner's report is larger than one report may be; nothing was changed: scan with less content at a time"
		sealed = o.seal()
	}
	for len(sealed) > wire.MaxReport && len(o.report.Processes)+len(o.report.Applied) > 0 {
		// What is in force replaces what the platform knows, so it goes last.
		if n := len(o.report.Processes); n > 0 {
			o.report.Processes = o.report.Processes[:n/2]
		} else {
			o.report.Applied = o.report.Applied[:len(o.report.Applied)/2]
		}
		sealed = o.seal()
	}
	o.x.Log("order " + o.report.Task + " ended: " + string(o.report.Outcome))
	return o.x.Store.AddResult(sealed)
}

func (o *order) seal() []byte {
	return trust.Seal(o.report.Value(), trust.HashKey(o.keys.IdentityPublic()), func(message []byte) []byte {
		return ed25519.Sign(o.keys.Identity, message)
	})
}

// progress tells people what happens; it may be lost.
func (o *order) progress(ctx context.Context, name, text string) {
	o.platform.progress(ctx, wire.Step{Task: o.manifest.Task, Name: name, Text: text})
}

// clip shortens a text for people to at most max bytes, at a character's border.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && s[max]&0xc0 == 0x80 {
		max--
	}
	return s[:max]
}
