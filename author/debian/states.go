package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
		next := without(source, list.lines[:end], list.lines[end:], fixes)
		if slices.ContainsFunc(all, func(s states) bool { return *s.before.series == *next.before.series }) {
			continue // built already
		}
		all = append(all, next)
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

// told makes the states that the changelog tells of: without the patches that the
// entries behind the version on servers speak of, and without all from the first
// of those on, as many are added that no entry names. There is none when they do
// not speak of the fixes.
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
	named := make([]bool, len(list.lines))
	for i, line := range list.lines {
		name := patchIn(line)
		if name == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(d.patchesOf(source), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the series may name what is not there
			return nil, err
		}
		named[i] = mentions(news, name, string(text))
	}
	var all []states
	for _, left := range leftOut(list, named, at) {
		var kept, pool []string
		for i, line := range list.lines {
			if left[i] {
				pool = append(pool, line)
			} else {
				kept = append(kept, line)
			}
		}
		s := without(source, kept, pool, fixes)
		s.order, s.guess = list.lines, true
		all = append(all, s)
	}
	return all, nil
}

// leftOut says which lines of a series a version may lack, the likeliest first,
// when named are those that its successors' changelog speaks of. Where it names
// some patches but not those between them, it does not name all. Answers
// without one of the fixes do not count.
func leftOut(list series, named []bool, fixes []int) [][]bool {
	first := slices.Index(named, true)
	if first < 0 {
		return nil
	}
	rest := make([]bool, len(named))
	gap, gaps := false, false
	for i := first; i < len(named); i++ {
		rest[i] = patchIn(list.lines[i]) != ""
		gaps = gaps || gap && named[i]
		gap = gap || rest[i] && !named[i]
	}
	answers := [][]bool{named, rest}
	if slices.Equal(named, rest) {
		answers = answers[:1]
	} else if gaps {
		slices.Reverse(answers)
	}
	return slices.DeleteFunc(answers, func(left []bool) bool {
		return slices.ContainsFunc(fixes, func(i int) bool { return !left[i] })
	})
}

var (
	vulnerability = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,}`)
	bugReport     = regexp.MustCompile(`bugs\.debian\.org/(?:cgi-bin/bugreport\.cgi\?bug=)?([0-9]{5,})`)
)

// tellingName is how many letters and digits the words in a patch's name must have
// to be known again in a changelog.
const tellingName = 16

// mentions reports whether a changelog speaks of a patch: by its name or the
// words in it, by the vulnerabilities in its name, or by what stands in front of
// its diff, vulnerabilities and reports of bugs.
func mentions(text, name, patch string) bool {
	if strings.Contains(text, path.Base(name)) {
		return true
	}
	words := strings.TrimLeft(strings.TrimSuffix(path.Base(name), path.Ext(name)), "0123456789-_")
	if words = squeezed(words); len(words) >= tellingName && strings.Contains(squeezed(text), words) {
		return true
	}
	front := patch
	if i := strings.Index(patch, "\n--- "); i >= 0 {
		front = patch[:i]
	}
	for _, id := range vulnerability.FindAllString(name+"\n"+front, -1) {
		if containsNumber(text, id) {
			return true
		}
	}
	for _, bug := range bugReport.FindAllStringSubmatch(front, -1) {
		if containsNumber(text, "#"+bug[1]) {
			return true
		}
	}
	return false
}

// squeezed is a text without anything but its letters and digits, all small.
func squeezed(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return -1
	}, text)
}

// containsNumber reports whether a text has an identifier that ends with a number,
// and not as the begin of a longer one.
func containsNumber(text, id string) bool {
	for {
		_, rest, found := strings.Cut(text, id)
		if !found {
			return false
		}
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			return true
		}
		text = rest
	}
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
