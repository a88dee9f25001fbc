// Package stage sets the demonstration up from the product's real programs:
// keys, portal, platform, demo servers with the sample service, and a client of
// the platform's REST API. It has no shortcut into any of them.
//
// It decides nothing about what is shown; that is for the program that uses it.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/demo/sample"
)

// Options say what to use.
type Options struct {
	Program  string // the livemend program
	Packages string // folder with the agent's packages
	Checkout string // hidden from the demo servers; may be empty
}

// Stage is everything that a demonstration runs. Methods may be called
// concurrently except where they say otherwise.
type Stage struct {
	Dir    string // working folder, removed by Close
	Sample *sample.Built

	options Options
	hide    []string
	spawn   *spawner
	lock    *os.File

	mu      sync.Mutex
	closers []func() error // run last first
}

// folderPattern names working folders. One whose lock is free belongs to a
// demonstration that was killed.
const (
	folderPattern = "livemend-demo-*"
	lockName      = "lock"
)

// Open makes the working folder and removes those that killed demonstrations
// left behind.
func Open(o Options) (*Stage, error) {
	if err := sweep(); err != nil {
		return nil, err
	}
	var err error
	for _, path := range []*string{&o.Program, &o.Packages} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*path); err != nil {
			return nil, fmt.Errorf("%w: run make first", err)
		}
	}
	dir, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return nil, err
	}
	s := &Stage{Dir: dir, options: o, spawn: newSpawner()}
	s.later(s.spawn.close)
	s.later(func() error { return os.RemoveAll(dir) })
	if s.lock, err = lock(filepath.Join(dir, lockName), os.O_CREATE); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if o.Checkout != "" {
		s.hide = append(s.hide, o.Checkout)
	}
	if err := os.Mkdir(s.path("logs"), 0o700); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends everything, last first, and removes the working folder.
func (s *Stage) Close() error {
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(closers) {
		errs = append(errs, f())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// later has Close run f.
func (s *Stage) later(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

func (s *Stage) path(name ...string) string {
	return filepath.Join(append([]string{s.Dir}, name...)...)
}

// BuildSample compiles and packs the sample service.
func (s *Stage) BuildSample(ctx context.Context) error {
	built, err := sample.Build(ctx, s.path("sample"))
	if err != nil {
		return err
	}
	s.Sample = built
	return nil
}

// Logs writes the ends of the programs' logs.
func (s *Stage) Logs(to io.Writer) {
	paths, err := filepath.Glob(s.path("logs", "*.log"))
	if err != nil {
		fmt.Fprintln(to, err)
	}
	for _, path := range paths {
		fmt.Fprintf(to, "%s:\n%s\n", filepath.Base(path), tail(path))
	}
}

// Livemend runs a command of the livemend program and returns its output.
func (s *Stage) Livemend(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.options.Program, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("livemend %s: %w\n%s", strings.Join(args[:min(3, len(args))], " "), err, problems.String()+out.String())
	}
	return out.String(), nil
}

// serve starts a server of the livemend program, has Close stop it, and returns
// it with the address that it prints after its name.
func (s *Stage) serve(ctx context.Context, name string, args ...string) (*Program, string, error) {
	p, err := s.spawn.start(s.path("logs"), name, nil, s.options.Program, args...)
	if err != nil {
		return nil, "", err
	}
	s.later(p.Stop)
	url, err := p.Line(ctx, name+": listening on ")
	return p, url, err
}

// sweep removes working folders whose demonstration is gone.
func sweep() error {
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		l, err := lock(filepath.Join(folder, lockName), 0)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
			continue // in use, another user's, or just made
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(folder), l.Close()); err != nil {
			return fmt.Errorf("remove what a killed demonstration left: %w", err)
		}
	}
	return nil
}

// lock takes the lock of a working folder; it is free again when its holder is
// gone, however it ended.
func lock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
