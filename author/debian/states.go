package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"livemend.dev/livemend/patch"
)

// maxStates bounds how many states of a source are rebuilt to find the one that
// the stock binary was made from. Each is one whole build.
const maxStates = 16

// diffFolder keeps the diffs of the run's options below the folder of patches.
const diffFolder = "livemend"

// tree is one state of the source.
type tree struct {
	dsc    *dsc
	series *string           // content of debian/patches/series; nil to leave it as it is
	extra  map[string]string // patches that the source does not bring: name to file
}

// states is a tree that may be what servers run, and what makes the fix of it.
type states struct {
	before tree
	after  *tree // the whole fixed source; nil when the fix is patches on top of before

	fixes []string // lines of series
	pool  []string // lines of the newer series that before lacks, in their order; fixes may need some
	order []string // all lines of the newer series, when before has a series of its own
	extra map[string]string
}

// states says which trees to compare: candidates, the likeliest first. Which of
// them is right, the stock binary tells.
//
// With two versions the trees are their sources. With named patches they are the
// older version as it is and with those patches. Where the older source is not to
// be had, it is the newer one with its last patches left out.
func (d *driver) states(ctx context.Context) ([]states, error) {
	to, err := d.source(ctx, d.To)
	if err != nil {
		return nil, err
	}
	d.origin(to)
	from := to
	if d.To != d.From {
		if from, err = d.source(ctx, d.From); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			d.say("the source of %s cannot be had: its state is made from %s by leaving patches out", d.From, d.To)
			return d.popped(ctx, to)
		}
		d.origin(from)
	}
	switch {
	case len(d.Patches) > 0 && d.To == d.From:
		return d.popped(ctx, to)
	case len(d.Patches)+len(d.Diffs) > 0:
		return d.added(ctx, from, to)
	}
	return []states{{before: tree{dsc: from}, after: &tree{dsc: to}}}, nil
}

// origin notes a source for the provenance.
func (d *driver) origin(source *dsc) {
	d.origins = append(d.origins, patch.Input{Name: "source " + dscName(source.source, source.version), SHA256: source.sum})
}

// popped makes the states from one source by leaving out its last patches; when
// none is named, all of those that are left out are the fix.
func (d *driver) popped(ctx context.Context, source *dsc) ([]states, error) {
	_, list, err := d.patches(ctx, source)
	if err != nil {
		return nil, err
	}
	var at []int
	if len(d.Patches) > 0 {
		if at, err = list.find(d.Patches); err != nil {
			return nil, err
		}
	}
	fixes, ends := list.states(at, maxStates)
	var all []states
	for _, end := range ends {
		series := joined(list.lines[:end])
		s := states{before: tree{dsc: source, series: &series}, fixes: fixes, pool: list.lines[end:]}
		if len(fixes) == 0 {
			s.after = &tree{dsc: source}
		}
		all = append(all, s)
	}
	return all, nil
}

// added makes the states from the older source and patches of the newer one, and
// from diffs of the run's own.
func (d *driver) added(ctx context.Context, from, to *dsc) ([]states, error) {
	_, own, err := d.patches(ctx, from)
	if err != nil {
		return nil, err
	}
	all := states{before: tree{dsc: from}, extra: map[string]string{}}
	if len(d.Patches) > 0 {
		folder, list, err := d.patches(ctx, to)
		if err != nil {
			return nil, err
		}
		at, err := list.find(d.Patches)
		if err != nil {
			return nil, err
		}
		all.order = list.lines
		for i, line := range list.lines {
			name := patchIn(line)
			if wanted := slices.Contains(at, i); name == "" || own.has(name) {
				if wanted {
					return nil, fmt.Errorf("%s has %s already; name a version before it with --from", d.From, name)
				}
				continue
			} else if wanted {
				all.fixes = append(all.fixes, line)
			}
			all.pool = append(all.pool, line)
			all.extra[name] = filepath.Join(folder, name)
		}
	}
	for i, file := range d.Diffs {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		d.origins = append(d.origins, patch.Input{Name: "diff " + filepath.Base(file), SHA256: hex.EncodeToString(sum[:])})
		name := path.Join(diffFolder, strconv.Itoa(i)+".patch")
		all.fixes = append(all.fixes, name)
		all.pool = append(all.pool, name)
		all.extra[name] = file
	}
	return []states{all}, nil
}

// fixed returns the tree with the fix. Should the fix not apply without patches
// that came before it, those come along, and the account says so.
func (d *driver) fixed(ctx context.Context, s states) (tree, error) {
	if s.after != nil {
		return *s.after, nil
	}
	_, own, err := d.patches(ctx, s.before.dsc)
	if err != nil {
		return tree{}, err
	}
	if s.before.series != nil {
		own = parseSeries(*s.before.series)
	}
	taken := slices.Clone(s.fixes)
	inputs, err := s.before.inputs()
	if err != nil {
		return tree{}, err
	}
	facts, err := d.do(ctx, job{
		name: "fit", inputs: digest(inputs, joined(own.lines), joined(s.fixes), joined(s.pool), joined(s.order)),
		advice: "The log has the words of the program that applies patches.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			for {
				t := s.with(own, taken)
				failed, err := d.applies(ctx, log, t)
				if err != nil || failed == "" {
					return map[string]string{"taken": joined(taken)}, nil, err
				}
				more, err := s.needed(failed, taken, d.path("patches", noEpoch(s.before.dsc.version)))
				if err != nil {
					return nil, nil, err
				}
				taken = append(taken, more)
			}
		},
	})
	if err != nil {
		return tree{}, err
	}
	taken = strings.Split(strings.TrimSuffix(facts["taken"], "\n"), "\n")
	for _, line := range taken {
		if !slices.Contains(s.fixes, line) {
			d.notices = append(d.notices, "the fix does not apply without "+patchIn(line)+", which comes along")
		}
	}
	return s.with(own, taken), nil
}

// with returns the tree with some lines of the pool: each behind the patch that
// it follows in the newer series, or at the end.
func (s states) with(own series, taken []string) tree {
	lines := slices.Clone(own.lines)
	for _, line := range s.pool {
		if !slices.Contains(taken, line) {
			continue
		}
		at := len(lines)
		for i := slices.Index(s.order, line) - 1; i >= 0; i-- {
			if before := slices.Index(lines, s.order[i]); before >= 0 && patchIn(s.order[i]) != "" {
				at = before + 1
				break
			}
		}
		lines = slices.Insert(lines, at, line)
	}
	series := joined(lines)
	return tree{dsc: s.before.dsc, series: &series, extra: s.extra}
}

// needed returns the line of the nearest patch before the failed one that touches
// one of its files.
func (s states) needed(failed string, taken []string, own string) (string, error) {
	at := slices.IndexFunc(s.pool, func(line string) bool { return patchIn(line) == failed })
	files := func(name string) (map[string]bool, error) {
		file := s.extra[name]
		if file == "" {
			file = filepath.Join(own, name)
		}
		text, err := os.ReadFile(file)
		return touches(string(text)), err
	}
	want, err := files(failed)
	if err != nil {
		return "", err
	}
	for i := at - 1; i >= 0; i-- {
		line := s.pool[i]
		name := patchIn(line)
		if name == "" || slices.Contains(taken, line) {
			continue
		}
		has, err := files(name)
		if err != nil {
			return "", err
		}
		for file := range has {
			if want[file] {
				return line, nil
			}
		}
	}
	return "", fmt.Errorf("%s does not apply to the source of %s", failed, s.before.dsc.version)
}

// touches returns the files that a diff changes.
func touches(diff string) map[string]bool {
	files := map[string]bool{}
	for line := range strings.Lines(diff) {
		for _, mark := range []string{"--- ", "+++ "} {
			if name, ok := strings.CutPrefix(line, mark); ok {
				name, _, _ = strings.Cut(strings.TrimSpace(name), "\t")
				if _, below, ok := strings.Cut(name, "/"); ok {
					files[below] = true
				}
			}
		}
	}
	return files
}

// applies unpacks a tree, and applies its patches. It returns the name of the
// one that does not apply.
func (d *driver) applies(ctx context.Context, log io.Writer, t tree) (failed string, err error) {
	const layer = "fit"
	if err := d.lay(ctx, log, layer, t); err != nil {
		return "", err
	}
	var said bytes.Buffer
	err = d.root.command(ctx, io.MultiWriter(log, &said), layer, "/usr/bin/env", "-C", d.treePath(), "dpkg-source", "--before-build", ".")
	if err == nil {
		return "", clearFolder(d.path("build"))
	}
	const mark = "dpkg-source: info: applying "
	if i := strings.LastIndex(said.String(), mark); i >= 0 {
		failed, _, _ = strings.Cut(said.String()[i+len(mark):], "\n")
		if failed = strings.TrimSpace(failed); t.series != nil && parseSeries(*t.series).has(failed) {
			return failed, nil
		}
	}
	return "", err
}

// patches unpacks a source's patches and returns their folder and their order.
func (d *driver) patches(ctx context.Context, source *dsc) (string, series, error) {
	folder := filepath.Join("patches", noEpoch(source.version))
	_, err := d.do(ctx, job{
		name: "patches-" + noEpoch(source.version), inputs: digest(source.sum),
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := errors.Join(clearFolder(d.path("build")), clearFolder(d.path(folder))); err != nil {
				return nil, nil, err
			}
			if err := d.unpack(ctx, log, depsLayer, source, "--skip-patches"); err != nil {
				return nil, nil, err
			}
			tree, err := os.OpenRoot(d.path("build", path.Base(d.treePath())))
			if err != nil {
				return nil, nil, err
			}
			err = copyPatches(tree, d.path(folder))
			return nil, []string{folder}, errors.Join(err, tree.Close(), clearFolder(d.path("build")))
		},
	})
	if err != nil {
		return "", series{}, err
	}
	text, err := os.ReadFile(d.path(folder, "series"))
	return d.path(folder), parseSeries(string(text)), err
}

// copyPatches copies debian/patches out of an unpacked source. A source without
// patches gives an empty series.
func copyPatches(source *os.Root, to string) error {
	const from = "debian/patches"
	if err := writeFile(filepath.Join(to, "series"), nil); err != nil {
		return err
	}
	tree := source.FS()
	err := fs.WalkDir(tree, from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(to, strings.TrimPrefix(name, from+"/")), data)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inputs is everything that a build of the tree depends on beside the root.
func (t tree) inputs() (string, error) {
	parts := []string{t.dsc.sum}
	if t.series != nil {
		parts = append(parts, "series", *t.series)
		for line := range strings.Lines(*t.series) {
			if file := t.extra[patchIn(line)]; file != "" {
				sum, err := digestPath(file)
				if err != nil {
					return "", err
				}
				parts = append(parts, sum)
			}
		}
	}
	return digest(parts...), nil
}

// adjust makes an unpacked source the tree: its series, and a changelog that
// ends with the version that servers run. Links in the source do not lead out of
// it.
func (t tree) adjust(source *os.Root, version string) error {
	const changelog, patches = "debian/changelog", "debian/patches"
	if t.dsc.version != version {
		text, err := source.ReadFile(changelog)
		if err != nil {
			return err
		}
		own, err := trimChangelog(string(text), version)
		if err != nil {
			return err
		}
		if err := source.WriteFile(changelog, []byte(own), 0o644); err != nil {
			return err
		}
	}
	if t.series == nil {
		return nil
	}
	if format, err := source.ReadFile("debian/source/format"); err != nil || !strings.Contains(string(format), "quilt") {
		return fmt.Errorf("the source package keeps no patches in %s; give two versions instead of single fixes", patches)
	}
	for name, file := range t.extra {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		at := path.Join(patches, name)
		if err := source.MkdirAll(path.Dir(at), 0o755); err != nil {
			return err
		}
		if err := source.WriteFile(at, data, 0o644); err != nil {
			return err
		}
	}
	if err := source.MkdirAll(patches, 0o755); err != nil {
		return err
	}
	return source.WriteFile(path.Join(patches, "series"), []byte(*t.series), 0o644)
}
