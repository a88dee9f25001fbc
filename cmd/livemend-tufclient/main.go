// Command livemend-tufclient is Livemend's verifier as a client of any TUF
// repository over HTTP. Its command line is the one that the public conformance
// suite of The Update Framework calls, so that others can judge the verifier.
//
// This package holds flags, HTTP and files. It decides nothing about trust, and
// no other part of Livemend uses it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/schemes"
)

const usage = `livemend-tufclient: verify and download from a TUF repository

  livemend-tufclient --metadata-dir DIR init ROOT
      trust the root metadata in the file ROOT
  livemend-tufclient --metadata-dir DIR --metadata-url URL refresh
      update root, timestamp, snapshot and targets in DIR
  livemend-tufclient --metadata-dir DIR --metadata-url URL --target-name NAME
      --target-base-url URL --target-dir DIR download
      the same, then verify and store the target; NAME may be given repeatedly

Exit status 0 when everything succeeded, else 1.
`

// errUsage says that the command line was not understood.
var errUsage = errors.New("the command line was not understood; nothing was done: livemend-tufclient --help shows what there is")

// options is the command line.
type options struct {
	metadataDir   string
	metadataURL   string
	targetNames   []string
	targetBaseURL string
	targetDir     string
	patience      time.Duration
	args          []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "livemend-tufclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return nil
	}
	if err != nil {
		return err
	}
	cache, err := client.OpenFolder(o.metadataDir)
	if err != nil {
		return fmt.Errorf("opening the metadata folder: %w", err)
	}
	switch command := o.args[0]; {
	case command == "init" && len(o.args) == 2:
		return initialise(cache, o.args[1])
	case command == "refresh" && len(o.args) == 1 && o.metadataURL != "":
		_, err := refresh(ctx, cache, o)
		return err
	case command == "download" && len(o.args) == 1 && o.metadataURL != "" &&
		o.targetBaseURL != "" && o.targetDir != "" && len(o.targetNames) > 0:
		return download(ctx, cache, o)
	}
	return errUsage
}

func parse(args []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("livemend-tufclient", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.metadataDir, "metadata-dir", "", "")
	set.StringVar(&o.metadataURL, "metadata-url", "", "")
	set.StringVar(&o.targetBaseURL, "target-base-url", "", "")
	set.StringVar(&o.targetDir, "target-dir", "", "")
	set.DurationVar(&o.patience, "patience", defaultPatience, "")
	set.Func("target-name", "", func(name string) error {
		o.targetNames = append(o.targetNames, name)
		return nil
	})
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	o.args = set.Args()
	if o.metadataDir == "" || len(o.args) == 0 || o.patience <= 0 {
		return nil, errUsage
	}
	return o, nil
}

// initialise stores the root that the user trusts.
func initialise(cache *client.Folder, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the root to trust: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	root, err := io.ReadAll(io.LimitReader(f, trust.MaxRoot+1))
	if err != nil {
		return fmt.Errorf("reading the root to trust: %w", err)
	}
	return client.Pin(cache, root, schemes.All())
}

// session is what one run of the program knows after its refresh.
type session struct {
	trusted *trust.Trusted
	web     *web
	now     time.Time
}

// refresh brings the metadata of the four roles up to date.
func refresh(ctx context.Context, cache *client.Folder, o *options) (*session, error) {
	now, err := clock(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{now: now, web: newWeb(o.metadataURL, o.patience)}
	if s.trusted, err = client.Refresh(ctx, cache, s.web, schemes.All(), now); err != nil {
		return nil, fmt.Errorf("refreshing, what was trusted before stays so: %w", err)
	}
	return s, s.trusted.CheckDelegations()
}

// download refreshes and stores each target, in the order they were named. The
// first that is refused ends it.
func download(ctx context.Context, cache *client.Folder, o *options) error {
	s, err := refresh(ctx, cache, o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.targetDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the folder for targets: %w", err)
	}
	to := &shelf{dir: o.targetDir, from: newWeb(o.targetBaseURL, o.patience), hashed: s.trusted.Root().ConsistentSnapshot}
	for _, name := range o.targetNames {
		target, err := client.Find(ctx, cache, s.web, s.trusted, name, s.now)
		if err != nil {
			return fmt.Errorf("looking for the target, nothing was downloaded: %w", err)
		}
		if err := to.get(ctx, target); err != nil {
			return err
		}
	}
	return nil
}
