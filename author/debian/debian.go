// Package debian drives the author tools from Debian source packages: it
// fetches the sources of two revisions, or of one whose last patches it leaves
// out, and the stock package that servers run; builds them in a throw-away
// root; proves by a rebuild that it can make the stock binary; and hands the
// objects that the linker took for it to package author.
//
// Nothing on the machine is edited: package lists, archives, sources and
// builds are in the work folder, and build dependencies are installed into a
// layer in memory that ends with the run. What else a source could find there and
// use, as on no builder of the distribution, is removed from that layer. Where
// packages come from is read at run time from the root's own sources.
//
// The package decides nothing about what may become a patch; that is author's.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"livemend.dev/livemend/author"
)

// Options say what to build.
type Options struct {
	Package string   // source package
	From    string   // version that the servers run
	To      string   // version whose source holds the fix; with Patches it may be From
	Patches []string // debian/patches/NAME of To: only these differ; empty for all of To
	Diffs   []string // files with diffs that go on top of From, instead of Patches
	Library string   // file name of the library or program, such as liblzma.so.5
	Binary  string   // the stock binary; empty to take it from the package
	Work    string   // folder for everything; a later run goes on with what it holds
	Root    string   // root folder to build in; empty for the machine's own
	Jobs    int      // compilers at the same time; 0 for as many as there are processors

	Progress func(line string) // called in order; may be nil
	Request  author.Request    // identity and fixes; the files are filled in
	clock    func() time.Time  // for the durations in progress lines
}

// maxDiff bounds a diff, in bytes.
const maxDiff = 16 << 20

// StageError says which stage failed and what to do.
type StageError struct {
	Stage  string
	Log    string // file with what the stage's programs wrote; may be empty
	Advice string
	Err    error
}

func (e *StageError) Error() string {
	text := "stage " + e.Stage + ": " + e.Err.Error()
	if e.Log != "" {
		text += "\nlog: " + e.Log
	}
	if e.Advice != "" {
		text += "\n" + e.Advice
	}
	return text + "\nfinished stages are kept; the same command goes on from here"
}

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Err }

var (
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,99}$`)
	versionPattern = regexp.MustCompile(`^[0-9][A-Za-z0-9.+:~-]{0,99}$`)
	libraryPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$`)
	patchPattern   = regexp.MustCompile(`^debian/patches/[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}$`)
	pathPattern    = regexp.MustCompile(`^/[A-Za-z0-9_./+-]*$`)
)

// check refuses what could be taken for something else by the programs that
// get it, and completes the options.
func (o *Options) check() error {
	switch {
	case !packagePattern.MatchString(o.Package):
		return fmt.Errorf("%q is no name of a source package", o.Package)
	case !versionPattern.MatchString(o.From):
		return fmt.Errorf("%q is no version; give the one that the servers run", o.From)
	case o.To == "" && len(o.Patches)+len(o.Diffs) > 0:
		o.To = o.From
	case !versionPattern.MatchString(o.To):
		return fmt.Errorf("%q is no version; give the one that holds the fix", o.To)
	}
	switch {
	case o.To == o.From && len(o.Patches)+len(o.Diffs) == 0:
		return errors.New("both versions are the same; name the fix as debian/patches/NAME, or another version")
	case len(o.Diffs) > 0 && (len(o.Patches) > 0 || o.To != o.From):
		return errors.New("a diff goes on top of the version that the servers run; leave out other versions and debian/patches/NAME")
	}
	if !libraryPattern.MatchString(o.Library) {
		return fmt.Errorf("%q is no file name of a library or program", o.Library)
	}
	for _, p := range o.Patches {
		if !patchPattern.MatchString(p) || strings.Contains(p, "..") {
			return fmt.Errorf("%q is not of the form debian/patches/NAME", p)
		}
	}
	for i, file := range o.Diffs {
		full, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		if info, err := os.Stat(full); err != nil || !info.Mode().IsRegular() || info.Size() > maxDiff {
			return fmt.Errorf("%s is no file with a diff (or larger than %d bytes)", file, maxDiff)
		}
		o.Diffs[i] = full
	}
	work, err := filepath.Abs(o.Work)
	if err != nil {
		return err
	}
	o.Work = work
	if o.Root == "" {
		o.Root = "/"
	}
	for _, p := range []string{o.Work, o.Root} {
		if !pathPattern.MatchString(p) {
			return fmt.Errorf("folder %q: only letters, digits and . _ + - can be used in mounts", p)
		}
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	if os.Geteuid() != 0 {
		return errors.New("building in a throw-away root needs root; nothing was changed")
	}
	return nil
}

// Build makes the inputs of a patch and the patch. It is a matter of minutes.
// Errors are *StageError, or those of author.Build when the change must not
// become a live patch.
func Build(ctx context.Context, o Options) (result *author.Result, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	d, err := newDriver(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	r, err := d.request(ctx)
	if err != nil {
		return nil, err
	}
	began := o.clock()
	result, err = author.Build(ctx, r)
	if err == nil {
		result.Account = append(result.Account, d.notices...)
		result.Metadata.Provenance.Inputs = append(result.Metadata.Provenance.Inputs, d.origins...)
		err = result.Metadata.Check()
	}
	if err == nil {
		d.say("patch: built in %s", o.clock().Sub(began).Round(time.Millisecond))
	}
	return result, err
}
