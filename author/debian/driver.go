package debian

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/patch"
)

//go:embed build.sh
var buildScript string

// sectionFlags give every function and variable a section of its own.
const sectionFlags = "-ffunction-sections -fdata-sections"

// driver is the state of one run.
type driver struct {
	Options
	state    *state
	lock     *os.File
	root     *root
	deps     map[string]bool // source packages whose build dependencies are installed in root
	equipped bool            // tools are installed in root
	sources  string
	notices  []string
	origins  []patch.Input // for the provenance
}

// newDriver takes the work folder for itself.
func newDriver(o Options) (d *driver, err error) {
	for _, dir := range []string{"apt/sources.d", "apt/lists/partial", "apt/cache/archives/partial", "source", "stock", "build", "links", "objects", "logs", "patches", "ccache", "commands", "trees"} {
		if err := os.MkdirAll(filepath.Join(o.Work, dir), 0o755); err != nil {
			return nil, err
		}
	}
	d = &driver{Options: o, deps: map[string]bool{}}
	if d.lock, err = os.Create(filepath.Join(o.Work, "lock")); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run works in %s: %w", o.Work, err), d.lock.Close())
	}
	if d.state, err = openState(o.Work); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// close ends the root with what runs in it, and lets go of the work folder.
func (d *driver) close() error {
	var err error
	if d.root != nil {
		err = d.root.close()
	}
	return errors.Join(err, d.lock.Close())
}

func (d *driver) say(format string, args ...any) { d.Progress(fmt.Sprintf(format, args...)) }

func (d *driver) path(parts ...string) string {
	return filepath.Join(append([]string{d.Work}, parts...)...)
}

// job is one stage: when the state does not know it as finished with these
// inputs, run makes the products.
type job struct {
	name   string
	inputs string
	advice string
	run    func(ctx context.Context, log io.Writer) (facts map[string]string, products []string, err error)
}

// do brings a stage to its end and returns what it found.
func (d *driver) do(ctx context.Context, j job) (map[string]string, error) {
	if facts, ok := d.state.finished(j.name, j.inputs); ok {
		d.say("%s: done before", j.name)
		return facts, nil
	}
	d.say("%s ...", j.name)
	began := d.clock()
	log, err := os.Create(d.path("logs", j.name+".log"))
	if err != nil {
		return nil, err
	}
	facts, products, err := j.run(ctx, log)
	err = errors.Join(err, log.Close())
	if err == nil {
		err = d.state.finish(j.name, j.inputs, facts, products...)
	}
	if err != nil {
		return nil, &StageError{Stage: j.name, Log: log.Name(), Advice: j.advice, Err: err}
	}
	d.say("%s: done in %s", j.name, d.clock().Sub(began).Round(100*time.Millisecond))
	return facts, nil
}

// enter returns the throw-away root; it is made when first needed.
func (d *driver) enter(ctx context.Context) (*root, error) {
	var err error
	if d.root == nil {
		d.root, err = startRoot(ctx, d.Root, d.Work)
	}
	return d.root, err
}

// apt runs one of apt's programs in the root with the private configuration.
func (d *driver) apt(ctx context.Context, log io.Writer, dir, program string, args ...string) error {
	r, err := d.enter(ctx)
	if err != nil {
		return err
	}
	args = append([]string{"/usr/bin/env", "-C", dir, program, "-c", inside + "/apt/apt.conf"}, args...)
	return r.command(ctx, log, depsLayer, args...)
}

// request goes through the stages and names the files that they made.
func (d *driver) request(ctx context.Context) (r author.Request, err error) {
	if err := d.index(ctx); err != nil {
		return r, err
	}
	all, err := d.states(ctx)
	if err != nil {
		return r, err
	}
	var stock string
	if d.Binary != "" || d.From != d.To || len(d.Patches) == 0 { // else From holds the fix
		if stock, err = d.stock(ctx, all[0].before.dsc); err != nil {
			return r, err
		}
	}
	chosen, link, err := d.twin(ctx, all, stock)
	if err != nil {
		return r, err
	}
	r = d.Request
	r.Binary, r.Twin, r.Fixed = link["stock"], d.path(link["twin"]), d.path(linkedFile("after"))
	if r.Before, err = d.objects(ctx, "before", chosen.before, link); err != nil {
		return r, err
	}
	fixed, err := d.fixed(ctx, chosen)
	if err != nil {
		return r, err
	}
	if r.After, err = d.objects(ctx, "after", fixed, link); err != nil {
		return r, err
	}
	return r, d.pin(ctx, chosen.before, fixed, &r)
}

// index fetches the lists of packages.
func (d *driver) index(ctx context.Context) error {
	files, err := privateSources(d.Root)
	if err != nil {
		return err
	}
	parts := []string{aptConfig}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		parts = append(parts, name, files[name])
	}
	d.sources = digest(parts...)
	_, err = d.do(ctx, job{
		name: "index", inputs: d.sources,
		advice: "Check the network and the package sources of " + d.Root + "; a log line with 404 or NO_PUBKEY names the source.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := clearFolder(d.path("apt/sources.d")); err != nil {
				return nil, nil, err
			}
			for name, text := range files {
				if err := writeFile(d.path("apt/sources.d", name), []byte(text)); err != nil {
					return nil, nil, err
				}
			}
			if err := writeFile(d.path("apt/apt.conf"), []byte(aptConfig)); err != nil {
				return nil, nil, err
			}
			return nil, []string{"apt/apt.conf", "apt/sources.d"}, d.apt(ctx, log, inside, "apt-get", "update")
		},
	})
	return err
}

// source fetches one version of the source package.
func (d *driver) source(ctx context.Context, version string) (*dsc, error) {
	name := dscName(d.Package, version)
	_, err := d.do(ctx, job{
		name: "source-" + noEpoch(version), inputs: digest(d.sources, d.Package, version),
		advice: "When the log says that the version was not found or answers 404, the archive has it no more: build from the newest source without its last patches (--to NEWEST --fix debian/patches/NAME). When the lists are old, remove " + d.path("state.json") + ".",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			fetchErr := d.apt(ctx, log, inside+"/source", "apt-get", "source", "--download-only", "--only-source", d.Package+"="+version)
			found, err := d.readDSC(name)
			if err != nil {
				return nil, nil, errors.Join(fetchErr, err)
			}
			if fetchErr != nil {
				// An archive that has lost the signature of the upstream sources is
				// as good: the description has their hashes.
				found.files = slices.DeleteFunc(found.files, func(f string) bool { return strings.HasSuffix(f, ".asc") })
			}
			if err := found.verify(d.path("source")); err != nil {
				return nil, nil, errors.Join(fetchErr, err)
			}
			if found.source != d.Package || found.version != version {
				return nil, nil, fmt.Errorf("the source package is %s %s", found.source, found.version)
			}
			products := []string{"source/" + name}
			for _, f := range found.files {
				products = append(products, "source/"+f)
			}
			return nil, products, nil
		},
	})
	if err != nil {
		return nil, err
	}
	return d.readDSC(name)
}

func (d *driver) readDSC(name string) (*dsc, error) {
	text, err := os.ReadFile(d.path("source", name))
	if err != nil {
		return nil, err
	}
	found, err := parseDSC(string(text))
	if err != nil {
		return nil, err
	}
	found.sum = sumOf(text)
	return found, nil
}

// clearFolder empties a folder.
func clearFolder(dir string) error {
	return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}
