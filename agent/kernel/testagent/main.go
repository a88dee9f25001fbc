// Command testagent drives package kernel inside a guest for that package's own
// tests: it reads one Request from its standard input, does it, and writes one
// Reply. It stands for the agent and is used nowhere else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

// Request is one thing to do; see the cases of do.
type Request struct {
	Do        string
	Module    string // path of a module
	Target    patch.Target
	Options   kernel.Options
	State     string // the agent's folder
	Probation time.Duration
	Patience  time.Duration // of who asks, without end when 0; apply only
	Number    int           // process to signal, or times to do it
}

// Reply is what came of it.
type Reply struct {
	Result      kernel.Result
	Identity    kernel.Identity
	Loaded      []kernel.Loaded
	Quarantined []wire.Quarantined
	Intent      intent.Record
	Times       []Times
	Kinds       []string // names of the errors that Error is
	Error       string
	Tasks       []kernel.Task
}

// Times are how long one way to load a patch took until the switch was over.
type Times struct{ Bare, Engine, Kept time.Duration }

// holdFile makes the loader wait for ever before it gives the module to the
// kernel, when it exists.
const holdFile = "/run/hold"

// The first thread of the process is the one that tests look at.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 && os.Args[1] == kernel.LoadArgument {
		if _, err := os.Stat(holdFile); err == nil {
			say("held before loading")
			select {}
		}
		os.Exit(kernel.LoadChild())
	}
	var r Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var reply Reply
	if err := do(context.Background(), &r, &reply); err != nil {
		reply.Error, reply.Kinds = err.Error(), kinds(err)
		var e *kernel.Error
		if errors.As(err, &e) {
			reply.Tasks = e.Tasks
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(&reply); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// say writes to the console by way of the kernel's log, where the host waits for
// it. As with any program's line, the kernel marks it as none of its own.
func say(text string) {
	if err := os.WriteFile("/dev/kmsg", []byte("testagent: "+text+"\n"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (r *Request) patch() (kernel.Patch, error) {
	b, err := os.ReadFile(r.Module)
	p := kernel.Patch{Module: b, Target: r.Target, Level: 1}
	copy(p.SHA256[:], filepath.Base(r.Module))
	return p, err
}

func do(ctx context.Context, r *Request, reply *Reply) (err error) {
	engine := kernel.New(r.Options)
	switch r.Do {
	case "identity":
		reply.Identity, err = kernel.Running("/")
		return err
	case "status":
		reply.Loaded, err = engine.Status()
		return err
	case "term":
		return syscall.Kill(r.Number, syscall.SIGTERM)
	case "unhold":
		return os.Remove(holdFile)
	}
	p, err := r.patch()
	if err != nil && r.Module != "" {
		return err
	}
	switch r.Do {
	case "apply":
		if r.Patience != 0 {
			var end context.CancelFunc
			ctx, end = context.WithTimeout(ctx, r.Patience)
			defer end()
		}
		reply.Result, err = engine.Apply(ctx, p)
	case "revert":
		reply.Result, err = engine.Revert(ctx, p)
	default:
		err = keep(ctx, r, reply, engine, p)
	}
	return err
}

// keep does what needs the agent's state.
func keep(ctx context.Context, r *Request, reply *Reply, engine *kernel.Engine, p kernel.Patch) error {
	store, err := state.Open(r.State)
	if err != nil {
		return err
	}
	defer store.Close()
	accepted, condemned := make(chan bool, 1), make(chan bool, 1)
	k := &kernel.Keeper{Engine: engine, Store: store, Probation: r.Probation, Now: time.Now, Log: say,
		Accepted: func(intent.Patch) { accepted <- true },
		Condemned: func(wire.Quarantined) {
			if r.Do == "start-held" {
				say("held in quarantine")
				select {}
			}
			condemned <- true
		}}
	defer func() {
		reply.Quarantined = store.Quarantines()
		reply.Intent = store.Intent()
	}()
	if r.Do == "clear" {
		return k.Clear()
	}
	if r.Do == "bench" {
		return bench(ctx, r, reply, engine, k, p)
	}
	if err := k.Start(ctx); err != nil || r.Do == "start" || r.Do == "start-held" {
		return err
	}
	term, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	run, end := context.WithCancel(ctx)
	ended := make(chan bool)
	go func() { defer close(ended); k.Run(run) }()
	defer func() { end(); <-ended }()
	select { // what Start found guilty is not what is waited for below
	case <-condemned:
	default:
	}
	reply.Result, err = k.Apply(ctx, p, "kernel/"+filepath.Base(r.Module))
	if err != nil {
		return err
	}
	say("applied " + reply.Result.Name)
	switch r.Do {
	case "keep-accepted":
		<-accepted
		say("accepted")
	case "keep-condemned":
		<-condemned
		return nil
	}
	<-term.Done()
	return k.Stop()
}

// verifyTime stands for the time that a patch is fetched and verified in, after
// Prepare.
const verifyTime = 100 * time.Millisecond

// bench loads one patch again and again, bare and by the agent.
func bench(ctx context.Context, r *Request, reply *Reply, engine *kernel.Engine, k *kernel.Keeper, p kernel.Patch) error {
	for range r.Number {
		var t Times
		name, err := bare(r.Module, &t, time.Now())
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := engine.Revert(ctx, p); err != nil {
			return err
		}
		for _, way := range []struct {
			apply func() (kernel.Result, error)
			took  *time.Duration
		}{
			{func() (kernel.Result, error) { return engine.Apply(ctx, p) }, &t.Engine},
			{func() (kernel.Result, error) { return k.Apply(ctx, p, "kernel/bench") }, &t.Kept},
		} {
			engine.Prepare()
			time.Sleep(verifyTime)
			result, err := way.apply()
			if err != nil {
				return err
			}
			*way.took = result.Took
			if _, err := k.Revert(ctx, p); err != nil {
				return err
			}
		}
		reply.Times = append(reply.Times, t)
	}
	return nil
}
