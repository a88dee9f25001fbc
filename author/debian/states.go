package debian

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
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

// states is a tree that may be what servers run, and what makes the fix of it.
type states struct {
	before tree
	after  *tree // the whole fixed source; nil when the fix is patches on top of before

	fixes []string // lines of series
	pool  []string // lines of the newer series that before lacks, in their order; fixes may need some
	order []string // all lines of the newer series, when before is not the begin of it
	extra map[string]string

	guess bool // the changelog made us think so; it need not even build
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
	all, err := d.told(source, list, at, fixes)
	if err != nil {
		return nil, err
	}
	for _, end := range ends {
		all = append(all, without(source, list.lines[:end], list.lines[end:], fixes))
	}
	return all, nil
}

// without makes the states of a source of which only the lines kept of its series
// are applied before the fix. Without single fixes the whole source is the fixed
// one.
func without(source *dsc, kept, pool, fixes []string) states {
	series := joined(kept)
	s := states{before: tree{dsc: source, series: &series}, fixes: fixes, pool: pool}
	if len(fixes) == 0 {
		s.after = &tree{dsc: source}
	}
	return s
}

// told makes the state that the changelog tells of: without the patches that the
// entries behind the version on servers speak of. There is none when they do not
// speak of the fixes.
func (d *driver) told(source *dsc, list series, at []int, fixes []string) ([]states, error) {
	text, err := os.ReadFile(filepath.Join(d.patchesOf(source), changelogCopy))
	if err != nil {
		return nil, err
	}
	own, err := trimChangelog(string(text), d.From)
	if err != nil || d.From == source.version {
		return nil, nil // it does not tell
	}
	news := strings.TrimSuffix(string(text), own)
	var kept, pool []string
	for i, line := range list.lines {
		switch name := patchIn(line); {
		case name != "" && mentions(news, name):
			pool = append(pool, line)
		case slices.Contains(at, i):
			return nil, nil
		default:
			kept = append(kept, line)
		}
	}
	if len(pool) == 0 {
		return nil, nil
	}
	s := without(source, kept, pool, fixes)
	s.order, s.guess = list.lines, true
	return []states{s}, nil
}

var vulnerability = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,}`)

// mentions reports whether a text speaks of a patch, by its name or by the
// vulnerabilities in its name.
func mentions(text, name string) bool {
	if strings.Contains(text, path.Base(name)) {
		return true
	}
	for _, id := range vulnerability.FindAllString(name, -1) {
		if strings.Contains(text, id) {
			return true
		}
	}
	return false
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
		d.origins = append(d.origins, patch.Input{Name: "diff " + filepath.Base(file), SHA256: sumOf(data)})
		name := path.Join(diffFolder, strconv.Itoa(i)+".patch")
		all.fixes = append(all.fixes, name)
		all.pool = append(all.pool, name)
		all.extra[name] = file
	}
	return []states{all}, nil
}
