package debian

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
)

// headerFolders are where sources look for what they could use beside what they
// ask for.
var headerFolders = []string{"/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/pkgconfig", "/usr/lib/pkgconfig", "/usr/share/pkgconfig"}

// removeStrangers takes packages for developers out of the root that the source
// does not ask for. Many sources use a library when they find it; the
// distribution's builders have none but those that were asked for. Where that
// cannot be done the build goes on: the rebuild tells whether it matters.
func (d *driver) removeStrangers(ctx context.Context, log io.Writer, source *dsc) error {
	var status, holders bytes.Buffer
	if err := d.root.command(ctx, &status, depsLayer, "/bin/cat", "/var/lib/dpkg/status"); err != nil {
		return err
	}
	// It ends with an error when one of the folders is nobody's.
	search := append([]string{"/usr/bin/dpkg-query", "--search"}, headerFolders...)
	if err := d.root.command(ctx, io.MultiWriter(log, &holders), depsLayer, search...); err != nil && holders.Len() == 0 {
		return err
	}
	found := strangers(status.String(), source.needs, owners(holders.String()))
	if len(found) == 0 {
		return nil
	}
	d.say("without %d packages for developers that the source does not ask for", len(found))
	if err := d.apt(ctx, log, inside, "apt-get", append([]string{"remove"}, found...)...); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.say("they cannot be removed: %v", err)
	}
	return nil
}

// owners reads what dpkg-query finds: names of packages with a comma between
// them, a colon, and the file.
func owners(search string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(search) {
		list, _, found := strings.Cut(line, ": /")
		if !found || strings.HasPrefix(line, "dpkg-query:") {
			continue
		}
		for _, name := range related(list) {
			out[name] = true
		}
	}
	return out
}

// builders are what every build may use, and what this driver uses itself.
const builders = "build-essential, dpkg-dev, ccache"

// strangers lists the installed packages for developers among holders that
// neither the needs of a source nor anything else that a builder has leads to. A
// package that is needed by one of several alternatives counts as needed.
func strangers(status, needs string, holders map[string]bool) []string {
	installed := map[string][]paragraph{} // by name and by what it provides
	todo := append(related(needs), related(builders)...)
	all := paragraphs(status)
	for _, p := range all {
		if !strings.HasSuffix(p.field("Status"), " installed") {
			continue
		}
		name := p.field("Package")
		for _, as := range append(related(p.field("Provides")), name) {
			installed[as] = append(installed[as], p)
		}
		if p.field("Essential") == "yes" || p.field("Priority") == "required" {
			todo = append(todo, name)
		}
	}
	needed := map[string]bool{}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, p := range installed[name] {
			if real := p.field("Package"); !needed[real] {
				needed[real] = true
				todo = append(todo, related(p.field("Depends"))...)
				todo = append(todo, related(p.field("Pre-Depends"))...)
			}
		}
	}
	var out []string
	for _, p := range all {
		name, section := p.field("Package"), p.field("Section")
		if needed[name] || !holders[name] || installed[name] == nil || section != "libdevel" && section != "devel" {
			continue
		}
		if arch := p.field("Architecture"); arch != "all" {
			name += ":" + arch
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// related returns the names in a relation between packages, such as Depends,
// without versions, architectures and profiles.
func related(relation string) []string {
	var names []string
	for one := range strings.FieldsFuncSeq(relation, func(r rune) bool { return r == ',' || r == '|' }) {
		one = strings.TrimSpace(one)
		if i := strings.IndexAny(one, " \t\n([<:"); i >= 0 {
			one = one[:i]
		}
		if packagePattern.MatchString(one) {
			names = append(names, one)
		}
	}
	return names
}
