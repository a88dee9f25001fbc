package coverage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/patch"
)

// Scopes of rows that are not about one library.
const (
	kernelScope = "running kernel"
	diskScope   = "package on disk"
)

// place is one binary in memory: the running kernel, or a library by build-id.
type place struct {
	id        string // build-id
	kernel    bool
	path      string // of the library, for people
	processes int64
	deleted   bool
}

// subject is one vulnerability in one component.
type subject struct {
	Finding
	scanned bool // a scanner spoke of it; else only a patch in force does
}

type computer struct {
	in       Input
	places   []place
	patches  map[string][]Patch // by build-id, highest level first
	byPath   map[string]Patch
	versions map[string]string // installed version by package name
	sources  map[string]string // source by package name
}

func newComputer(in Input) *computer {
	c := &computer{in: in, patches: map[string][]Patch{}, byPath: map[string]Patch{},
		versions: map[string]string{}, sources: map[string]string{}}
	for _, p := range in.Patches {
		if p.Metadata == nil {
			continue
		}
		id := string(p.Metadata.Target.BuildID)
		c.patches[id] = append(c.patches[id], p)
		c.byPath[p.Path] = p
	}
	for _, list := range c.patches {
		slices.SortFunc(list, func(a, b Patch) int {
			return cmp.Or(cmp.Compare(b.Metadata.Level, a.Metadata.Level), cmp.Compare(a.Path, b.Path))
		})
	}
	for _, p := range in.Packages {
		c.versions[p.Name], c.sources[p.Name] = p.Version, p.Source
	}
	if in.Facts.KernelID != "" {
		c.places = append(c.places, place{id: in.Facts.KernelID, kernel: true, processes: 1})
	}
	c.addLibraries()
	return c
}

// addLibraries gathers the mappings of one build-id, which may have several
// paths, into one place.
func (c *computer) addLibraries() {
	at := map[string]int{}
	for _, l := range c.in.Libraries {
		i, ok := at[l.BuildID]
		if !ok {
			i = len(c.places)
			at[l.BuildID] = i
			c.places = append(c.places, place{id: l.BuildID, path: l.Path})
		}
		p := &c.places[i]
		p.processes += l.Processes
		p.deleted = p.deleted || l.Deleted
		p.path = min(p.path, l.Path)
	}
}

// subjects returns what is spoken of: by scanners, and by patches in force.
// Where several scanners name the same, an open finding counts.
func (c *computer) subjects() []subject {
	type key struct{ cve, component string }
	found := map[key]subject{}
	for _, f := range c.in.Findings {
		k := key{f.CVE, f.Component}
		if old, ok := found[k]; ok && !better(f, old.Finding) {
			continue
		}
		found[k] = subject{Finding: f, scanned: true}
	}
	for _, a := range c.in.Applied {
		p, ok := c.byPath[a.Path]
		if !ok {
			continue // nothing signed says what it fixes: no claim
		}
		for _, fix := range p.Metadata.Fixes {
			spoken := false
			for k := range found {
				spoken = spoken || k.cve == string(fix.CVE) && c.sameComponent(fix.Component, k.component)
			}
			if !spoken {
				found[key{string(fix.CVE), fix.Component}] = subject{Finding: Finding{CVE: string(fix.CVE),
					Component: fix.Component, Fixed: fix.FixedVersion, Severity: fix.Severity, Title: p.Metadata.Description}}
			}
		}
	}
	out := make([]subject, 0, len(found))
	for _, s := range found {
		out = append(out, s)
	}
	return out
}

// better orders two answers about the same: open first, then by text, so that
// the order of the input does not matter.
func better(a, b Finding) bool {
	if a.Open != b.Open {
		return a.Open
	}
	return cmp.Or(cmp.Compare(a.Scanner, b.Scanner), cmp.Compare(a.Installed, b.Installed), cmp.Compare(a.Fixed, b.Fixed),
		cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Title, b.Title)) < 0
}

// inMemory returns one row for every place in memory that a patch of the
// catalogue proves to hold, or to have held, the vulnerable code.
func (c *computer) inMemory(s subject) []Row {
	if release, _ := kernelRelease(s.Component); release != "" && release != c.in.Facts.Kernel {
		return nil // a package of another kernel than the running one
	}
	var rows []Row
	for _, p := range c.places {
		fix, best, refused, ok := c.fixFor(s, p)
		if !ok {
			continue
		}
		row := c.row(s)
		row.Scope = "library " + p.id
		if p.kernel {
			row.Scope = kernelScope
		}
		row.Severity = cmp.Or(row.Severity, fix.Severity)
		row.Library, row.Processes = p.path, p.processes
		applied, level := c.appliedTo(s, p)
		row.Patched = min(applied, p.processes)
		c.judge(&row, p, fix, best, refused, level)
		rows = append(rows, row)
	}
	return rows
}

// judge sets the state of a place in memory, with its reason.
func (c *computer) judge(row *Row, p place, fix patch.Fix, best *Patch, refused string, level Patch) {
	what := "the running kernel"
	if !p.kernel {
		what = p.path
	}
	offered := best != nil
	if offered {
		row.PatchPath, row.PatchID, row.PatchLevel = best.Path, best.Metadata.ID, best.Metadata.Level
	}
	switch {
	case row.Patched == p.processes && p.processes > 0:
		m := level.Metadata
		row.State, row.PatchPath, row.PatchID, row.PatchLevel = LivePatched, level.Path, m.ID, m.Level
		row.Reason = fmt.Sprintf("patch %s level %d is applied to %s (build-id %s)", m.ID, m.Level, where(p), p.id)
	case c.fixedOnDisk(row.Component, fix):
		row.State = FixedOnDisk
		row.Reason = fmt.Sprintf("the package on disk has the fix, but %s (build-id %s) is still in use%s", what, p.id, by(p, p.processes-row.Patched))
		if !offered && refused != "" {
			row.Reason += "; its live patch is not offered: " + refused
		}
	case offered && row.Patched > 0:
		row.State = Available
		row.Reason = fmt.Sprintf("patch %s is applied to %d of %s that map %s (build-id %s)", level.Metadata.ID, row.Patched, count(p.processes), what, p.id)
	case offered:
		row.State = Available
		row.Reason = fmt.Sprintf("patch %s level %d fits %s (build-id %s), in use%s", best.Metadata.ID, best.Metadata.Level, what, p.id, by(p, p.processes))
	default:
		row.State = Vulnerable
		row.Reason = fmt.Sprintf("%s (build-id %s) has the flaw, and its live patch is not offered: %s", what, p.id, refused)
	}
}

// fixFor finds what the catalogue says of s in p: the fix, the best patch that
// is offered (nil when none is) and why others are not.
func (c *computer) fixFor(s subject, p place) (fix patch.Fix, best *Patch, refused string, ok bool) {
	for _, candidate := range c.patches[p.id] {
		m := candidate.Metadata
		if (m.Kind == patch.Kernel) != p.kernel {
			continue
		}
		for _, f := range m.Fixes {
			if string(f.CVE) != s.CVE || !c.sameComponent(f.Component, s.Component) {
				continue
			}
			if !ok {
				fix, ok = f, true
			}
			if candidate.Refused == "" && best == nil {
				best = &candidate
			}
			refused = cmp.Or(refused, candidate.Refused)
			break
		}
	}
	return fix, best, refused, ok
}

// appliedTo returns to how many processes a patch that covers s in p is
// applied, and that patch.
func (c *computer) appliedTo(s subject, p place) (processes int64, by Patch) {
	for _, a := range c.in.Applied {
		candidate, ok := c.byPath[a.Path]
		if !ok || string(candidate.Metadata.Target.BuildID) != p.id || !candidate.Metadata.Covers(patch.CVE(s.CVE)) {
			continue
		}
		n := a.Processes // 1 for the kernel
		if n > processes || n == processes && by.Metadata != nil && candidate.Metadata.Level > by.Metadata.Level {
			processes, by = n, candidate
		}
	}
	return processes, by
}

// onDisk judges s where no binary in memory is known to hold it.
func (c *computer) onDisk(s subject) Row {
	row := c.row(s)
	row.Scope = diskScope
	release, isKernel := kernelRelease(s.Component)
	patched := c.patchExists(s)
	switch {
	case !c.in.Known:
		row.State, row.Reason = Unknown, "the agent has not sent an inventory yet"
	case isKernel && release != "" && c.in.Facts.Kernel != "" && release != c.in.Facts.Kernel:
		row.State, row.Reason = NotRunning, "installed kernel "+release+" is not the running one, "+c.in.Facts.Kernel
	case !s.Open && s.scanned:
		row.State, row.Reason = NotAffected, "the last scan with "+s.Scanner+" does not report it any more"
	case !s.Open:
		row.State, row.Reason = NotAffected, "a live patch for it is in force, but no process maps the library that it fits"
	case s.Fixed != "" && row.Installed != "" && atLeast(row.Installed, s.Fixed):
		row.State, row.Reason = NotAffected, "version "+row.Installed+" was installed after the scan and has the fix of "+s.Fixed
	case isKernel && c.in.Facts.KernelID == "" && patched:
		row.State, row.Reason = Unknown, "the build-id of the running kernel could not be read, so no live patch can be matched"
	case patched:
		row.State, row.Reason = Vulnerable, "a live patch exists, but it fits no binary that is in use here"
	default:
		row.State, row.Reason = Vulnerable, "there is no live patch for it yet"
	}
	return row
}

// row starts a row with what does not depend on the place.
func (c *computer) row(s subject) Row {
	row := Row{CVE: s.CVE, Component: s.Component, Severity: s.Severity, Title: s.Title, Installed: s.Installed}
	if v, ok := c.versions[s.Component]; ok {
		row.Installed = v
	}
	distribution := c.in.Facts.OS + "-" + c.in.Facts.OSVersion
	for _, u := range c.in.Updates {
		if u.CVE != s.CVE || u.Distribution != distribution || !c.sameComponent(u.Component, s.Component) ||
			row.Installed != "" && atLeast(row.Installed, u.FixedVersion) {
			continue
		}
		// The lowest version that fixes it asks for the smallest change.
		if row.Update == "" || atLeast(row.Update, u.FixedVersion) && row.Update != u.FixedVersion ||
			row.Update == u.FixedVersion && u.Advisory < row.Advisory {
			row.Update, row.Advisory = u.FixedVersion, u.Advisory
		}
	}
	return row
}

// patchExists reports whether the catalogue offers a patch for s, for whatever binary.
func (c *computer) patchExists(s subject) bool {
	for _, p := range c.byPath {
		if p.Refused != "" {
			continue
		}
		for _, f := range p.Metadata.Fixes {
			if string(f.CVE) == s.CVE && c.sameComponent(f.Component, s.Component) {
				return true
			}
		}
	}
	return false
}

// by says who uses what lies at a place: nobody but itself in the kernel's case.
func by(p place, n int64) string {
	if p.kernel {
		return ""
	}
	return " by " + count(n)
}

func where(p place) string {
	if p.kernel {
		return "the running kernel"
	}
	return fmt.Sprintf("all %s that map %s", count(p.processes), p.path)
}

func count(n int64) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// kernelRelease reports whether a component is a kernel package, and the
// release that its name carries, if any.
func kernelRelease(component string) (release string, ok bool) {
	if component == "linux" || component == "kernel" {
		return "", true
	}
	rest, ok := strings.CutPrefix(component, "linux-image-")
	if !ok {
		return "", false
	}
	rest = strings.TrimPrefix(rest, "unsigned-")
	if rest == "" || rest[0] < '0' || rest[0] > '9' {
		return "", true // linux-image-amd64: a name for the newest
	}
	return rest, true
}
