// Command kernel shows the whole product on a kernel: a virtual machine with one
// of the distribution's kernels that has a real vulnerability, its repair while
// it runs by portal, platform and agent, and the distribution's own fixed kernel
// beside it for comparison. See the README.
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
	"livemend.dev/livemend/internal/guest"
)

func main() {
	err := run()
	if errors.Is(err, guest.ErrUnavailable) {
		fmt.Println("SKIP: the demonstration cannot be shown here, nothing was proved:", err)
		os.Exit(skipped)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// skipped is the exit status of a demonstration that was not shown.
const skipped = 77

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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	s, err := stage.Open(stage.Options{Program: *program, Packages: *packages})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t := &tour{stage: s, password: rand.Text()}
	defer t.end()
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
