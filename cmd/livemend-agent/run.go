package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/agent/link"
	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/orders"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/scanner"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/agent/watch"
	"livemend.dev/livemend/wire"
)

func runCommand(ctx context.Context, o options) error {
	// Everybody may read what is patched, and the scanner, which runs without
	// rights, its files; an administrator's shell may be stricter. The state
	// folder has modes of its own.
	unix.Umask(0o022)
	store, err := state.Open(o.state)
	if err != nil {
		return err
	}
	look := inventory.New()
	judge := guard.New(0)
	condemned := make(chan struct{}, 1)
	keeper := startKeeper(ctx, o, store, func(wire.Quarantined) {
		select {
		case condemned <- struct{}{}:
		default:
		}
	})
	executor := newExecutor(o, store, look, judge, keeper)
	agent := link.Agent{
		Version: version, Store: store, Inventory: look, Every: o.every, Log: log, Orders: executor,
		Events: func(ctx context.Context, scan func()) {
			var running sync.WaitGroup
			defer running.Wait()
			if keeper != nil {
				running.Go(func() { keeper.Run(ctx) })
				running.Go(func() {
					for {
						select {
						case <-condemned:
							scan()
						case <-ctx.Done():
							return
						}
					}
				})
			}
			w := watch.Watcher{Guard: judge, Libraries: executor.Libraries, Look: executor.Look, Judge: executor.Judge, Scan: scan, Log: log}
			w.Run(ctx)
		},
	}
	log("livemend-agent " + version + " started")
	err = agent.Run(ctx)
	if keeper != nil {
		err = errors.Join(err, keeper.Stop())
	}
	if errors.Is(err, context.Canceled) {
		log("livemend-agent ended; live patches stay in force")
		err = nil
	}
	return errors.Join(err, store.Close())
}

// newExecutor wires what carries out orders. judge and keeper may be nil for what
// patches no processes, or no kernel.
func newExecutor(o options, store *state.Store, look *inventory.Collector, judge *guard.Guard, keeper *kernel.Keeper) *orders.Executor {
	return &orders.Executor{
		Store: store, Engine: userspace.New(userspace.Options{Guard: judge}), Guard: judge, Kernel: keeper, Scanner: scanner.Runner{Dir: o.run},
		PolicyPath: o.policy, RunDir: o.run, BootID: look.BootID(), Now: time.Now, Log: log,
	}
}

// startKeeper returns the keeper of kernel patches, nil where the kernel cannot
// be told apart from others or the state says nothing: nothing is loaded then.
func startKeeper(ctx context.Context, o options, store *state.Store, condemned func(wire.Quarantined)) *kernel.Keeper {
	allowed, err := policy.Load(o.policy)
	if err != nil { // orders say so, too; what it would permit is not permitted
		log(err.Error())
	}
	k := &kernel.Keeper{
		Engine: kernel.New(kernel.Options{RunDir: o.run, NudgeAfter: allowed.KernelNudge, Force: allowed.KernelForce}),
		Store:  store, Now: time.Now, Log: log, Condemned: condemned,
	}
	k.Probation, err = time.ParseDuration(probation)
	if err == nil {
		err = k.Start(ctx)
	}
	if err != nil {
		log("kernel patches are not loaded: " + err.Error())
		return nil
	}
	return k
}

// bootCommand loads kernel patches early, before there is a network. What was
// on probation when the system was shut down waits for the running agent.
func bootCommand(ctx context.Context, o options) error {
	unix.Umask(0o022)
	store, err := state.Open(o.state)
	if err != nil {
		return err
	}
	defer store.Close()       // what was written is durable
	inDoubt := store.Intent() // as the last boot left it
	keeper := startKeeper(ctx, o, store, nil)
	if keeper == nil {
		return errors.New("no kernel patch was loaded")
	}
	return newExecutor(o, store, inventory.New(), guard.New(0), keeper).Boot(ctx, inDoubt)
}

// allowCommand is how a person ends a halt.
func allowCommand(o options) error {
	store, err := state.Open(o.state)
	if errors.Is(err, state.ErrInUse) {
		return errors.New("the agent is running; nothing was changed: stop it, give this command again, and start it")
	}
	if err != nil {
		return err
	}
	k := kernel.Keeper{Store: store, Now: time.Now, Log: log}
	if err := k.Clear(); err != nil {
		return errors.Join(err, store.Close())
	}
	say(os.Stdout, "kernel patches are loaded again; those in quarantine are not\n")
	return store.Close()
}

// statusCommand shows the file that the running agent writes: it needs no
// rights.
func statusCommand(o options) error {
	f, err := os.Open(filepath.Join(o.run, localfiles.State))
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("no agent has run since this server started: start it with systemctl start livemend-agent")
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, f)
	return errors.Join(err, f.Close())
}

func coveredCommand(o options, cve string) error {
	covered, err := localfiles.IsCovered(o.run, cve)
	if err != nil {
		return err
	}
	if !covered {
		say(os.Stdout, cve+" is not covered by a live patch on this server\n")
		return exit(1)
	}
	say(os.Stdout, cve+" is covered: whatever has the flaw in memory here runs the patched code\n")
	return nil
}

func policyCommand(o options) error {
	p, err := policy.Load(o.policy)
	if err != nil {
		return err
	}
	say(os.Stdout, "live patches may be applied: "+map[bool]string{true: "yes", false: "no"}[p.Apply]+"\n")
	for _, name := range p.Scanners {
		say(os.Stdout, "scanner allowed: "+name+"\n")
	}
	for _, name := range p.Deny {
		say(os.Stdout, "never patched: "+name+"\n")
	}
	if p.KernelNudge > 0 {
		say(os.Stdout, "tasks that hold a kernel patch up are stopped and continued after "+p.KernelNudge.String()+"\n")
	}
	if p.KernelForce {
		say(os.Stdout, "kernel patches are forced when tasks hold them up\n")
	}
	return nil
}
