package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/link"
	"livemend.dev/livemend/agent/localfiles"
	"livemend.dev/livemend/agent/orders"
	"livemend.dev/livemend/agent/policy"
	"livemend.dev/livemend/agent/scanner"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/agent/watch"
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
	executor := &orders.Executor{
		Store: store, Engine: userspace.New(userspace.Options{Guard: judge}), Guard: judge, Scanner: scanner.Runner{Dir: o.run},
		PolicyPath: o.policy, RunDir: o.run, BootID: look.BootID(), Now: time.Now, Log: log,
	}
	agent := link.Agent{
		Version: version, Store: store, Inventory: look, Every: o.every, Log: log, Orders: executor,
		Events: func(ctx context.Context, scan func()) {
			w := watch.Watcher{Guard: judge, Libraries: executor.Libraries, Look: executor.Look, Judge: executor.Judge, Scan: scan, Log: log}
			w.Run(ctx)
		},
	}
	log("livemend-agent " + version + " started")
	err = agent.Run(ctx)
	if errors.Is(err, context.Canceled) {
		log("livemend-agent ended; live patches stay in force")
		err = nil
	}
	return errors.Join(err, store.Close())
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
	say(os.Stdout, cve+" is covered: every process that has the library mapped runs the patched code\n")
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
	return nil
}
