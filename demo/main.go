// Command demo shows the whole product on this machine: a sample service with a
// planted leak on two demo servers, and its repair by portal, platform and
// agents, each step with the evidence that was checked. See the README.
//
// It starts the product's real programs and talks to them as a user would; it
// must not reach into them.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"livemend.dev/livemend/demo/show"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/demo/world"
)

func main() {
	world.MaybeInit()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	home, err := os.Executable()
	if err != nil {
		return err
	}
	home = filepath.Dir(filepath.Dir(home))
	once := flag.Bool("once", false, "end after the last step instead of leaving everything running")
	program := flag.String("program", filepath.Join(home, "bin", "livemend"), "the livemend program")
	packages := flag.String("packages", filepath.Join(home, "dist"), "folder with the agent's packages")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("demo servers are namespaces, which need root: run it by make demo or with sudo")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	s, err := stage.Open(stage.Options{Program: *program, Packages: *packages, Checkout: checkout(home)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t := &tour{stage: s, password: rand.Text()}
	if err := show.Run(ctx, os.Stdout, t.steps()); err != nil {
		if ctx.Err() != nil {
			return errors.New("ended on request; nothing is left running")
		}
		return err
	}
	if *once {
		return nil
	}
	fmt.Printf("\nIt stays running. Look at it in a browser:\n    %s\n    user admin, password %s\nCtrl-C ends everything and leaves nothing behind.\n", t.platform.URL, t.password)
	<-ctx.Done()
	return nil
}

// checkout returns home when it is the project's folder; the demo servers do
// not get to see it.
func checkout(home string) string {
	if _, err := os.Stat(filepath.Join(home, "go.mod")); err != nil {
		return ""
	}
	return home
}
