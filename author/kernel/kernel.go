// Package kernel builds live patches for the kernels of Debian: from a diff
// against the source package of exactly the version that servers run to a
// loadable livepatch module.
//
// It compiles only the objects that the diff touches, before and after, with the
// distribution's configuration and compiler; proves with the kernel image and the
// modules of the distribution's package that the build before is what runs; has
// the builds compared (objdiff, layout, ownership); takes the changed functions
// with all that describes them out of the objects; and makes a module of them,
// whose references to what the kernel does not export are resolved by the
// kernel's livepatch code (klp). Where a running kernel could be harmed, or where
// that cannot be told, it refuses and says where and why.
//
// Nothing on the machine is changed but the work folder; no package is installed
// and no module is loaded.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/patch"
)

// Options say what to build.
type Options struct {
	Release string // as uname -r tells it, such as 6.1.0-47-amd64
	Diff    string // file with the fix, as a diff with paths from the top of the source
	Work    string // folder for packages, sources and builds; a later run goes on with it
	Jobs    int    // compilers at the same time; 0 for as many as there are processors

	ID          string
	Level       int64
	Fixes       []patch.Fix
	Supersedes  []string
	Requires    []string
	Description string
	Builder     string // program and version, for the provenance
	Waivers     []author.Waiver

	Progress func(line string) // called in order; may be nil
}

// Result is a module that is ready to be published.
type Result struct {
	Module   []byte
	Metadata *patch.Metadata
	Account  []string // what was done and what to know, for people to read
}

// Limits.
const (
	maxDiff   = 4 << 20          // bytes of a diff
	stepTime  = 30 * time.Minute // of one program
	maxSource = 256              // sources that a diff may touch
)

// ErrUnavailable is wrapped when a package cannot be had: it may have left the
// distribution's archive.
var ErrUnavailable = errors.New("a package that the kernel was made from cannot be had")

var releasePattern = regexp.MustCompile(`^([0-9]+\.[0-9]+)[A-Za-z0-9.+~-]*-amd64$`)

func (o *Options) check() error {
	switch {
	case !releasePattern.MatchString(o.Release):
		return fmt.Errorf("%q is no release of a Debian kernel for amd64, as uname -r tells it", o.Release)
	case o.ID == "" || o.Level < 1:
		return errors.New("the patch needs an id and a level from 1")
	}
	if info, err := os.Stat(o.Diff); err != nil || !info.Mode().IsRegular() || info.Size() > maxDiff {
		return fmt.Errorf("%s is no file with a diff (or larger than %d bytes)", o.Diff, maxDiff)
	}
	work, err := filepath.Abs(o.Work)
	if err != nil {
		return err
	}
	o.Work = work
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return nil
}

// Build makes a patch. It is a matter of a minute when the packages are there.
// The error holds refusal.Errors when the change must not become a live patch;
// it wraps ErrUnavailable when a package cannot be had.
func Build(ctx context.Context, o Options) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &build{Options: o}
	return b.run(ctx)
}

// build is one run.
type build struct {
	Options
	inputs  []patch.Input
	notices []string
}

func (b *build) say(format string, args ...any) { b.Progress(fmt.Sprintf(format, args...)) }

func (b *build) note(format string, args ...any) {
	b.notices = append(b.notices, fmt.Sprintf(format, args...))
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
