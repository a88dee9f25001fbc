// Package layout compares the form of data in memory between two builds. A
// running process holds objects that the old code made; new code that expects
// a member elsewhere, or of another type, would read and write beside it. What
// types there are and what they look like is read from debug information.
//
// Every type that an object's debug information describes is compared, not only
// those of its changed functions: a cast leaves no trace in debug information,
// and compilers describe only the types that an object uses.
//
// The package is pure. It does not decide which objects matter, and does not
// know waivers.
package layout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// Limits on the text of one refusal.
const (
	maxReasons = 6
	maxPaths   = 6
)

// debugInformation is the place of refusals for want of it.
const debugInformation = "debug information"

// Check compares the types of each pair and returns what must be refused,
// sorted by place. The same change in several objects is one refusal. Objects
// that only the new build has are held against all others.
func Check(pairs []*objdiff.Pair) []*refusal.Error {
	c := &check{found: map[finding][]string{}}
	var before []*types
	for _, p := range pairs {
		if p.Before == nil || len(p.Changed)+len(p.New) == 0 {
			continue
		}
		was := c.read(p.Path, p.Before)
		if was == nil {
			continue
		}
		is := c.read(p.Path, p.After)
		if is == nil {
			continue
		}
		before = append(before, was)
		c.described(p, was, is)
		c.compare(p.Path, []*types{was}, is)
	}
	for _, p := range pairs {
		if p.Before != nil || p.After == nil {
			continue
		}
		if is := c.read(p.Path, p.After); is != nil {
			c.compare(p.Path, before, is)
		}
	}
	return c.refusals()
}

// finding is one thing to refuse.
type finding struct{ place, reason string }

type check struct {
	found map[finding][]string // objects
}

func (c *check) add(path, place, reason string) {
	f := finding{place, reason}
	if !slices.Contains(c.found[f], path) {
		c.found[f] = append(c.found[f], path)
	}
}

// read returns the types of an object, or nil with a finding.
func (c *check) read(path string, o *object.Object) *types {
	t, err := readTypes(o)
	if err != nil {
		c.add(path, debugInformation, "it cannot be told whether data layouts changed: "+err.Error())
		return nil
	}
	return t
}

// described finds functions that the debug information is silent about, such as
// those in assembler.
func (c *check) described(p *objdiff.Pair, was, is *types) {
	silent := func(f *object.Function) {
		c.add(p.Path, "function "+f.Name, "debug information does not describe it, so it cannot be told which data layouts its code expects")
	}
	for _, f := range slices.Concat(p.Changed, p.New) {
		if !is.code[f.Section.Index] {
			silent(f)
		}
	}
	for _, f := range p.Before.Functions {
		if p.IsChanged(f.Name) && !was.code[f.Section.Index] {
			silent(f)
		}
	}
}

// compare holds the types of a new object against old ones.
func (c *check) compare(path string, before []*types, is *types) {
	for _, name := range slices.Sorted(maps.Keys(is.named)) {
		var old []*form
		for _, t := range before {
			old = append(old, t.named[name]...)
		}
		for _, n := range is.named[name] {
			if why := changed(old, n); why != "" {
				c.add(path, name, why)
			}
		}
	}
	for _, n := range is.enums {
		for _, t := range before {
			for _, o := range t.enums {
				if !o.sharesValue(n) {
					continue
				}
				if why := o.differs(n); len(why) > 0 {
					c.add(path, "enum with "+o.values[0].name, text(why))
				}
			}
		}
	}
}

// changed says how n differs from the old types of its name; it is empty when
// one of them is alike, or when there is none.
func changed(old []*form, n *form) string {
	var first []string
	for i, o := range old {
		why := o.differs(n)
		if len(why) == 0 {
			return ""
		}
		if i == 0 {
			first = why
		}
	}
	return text(first)
}

func text(reasons []string) string {
	if n := len(reasons); n > maxReasons {
		reasons = append(slices.Clone(reasons[:maxReasons]), fmt.Sprintf("and %d differences more", n-maxReasons))
	}
	return strings.Join(reasons, "; ")
}

func (c *check) refusals() []*refusal.Error {
	reasons := map[string]int{} // by place
	for f := range c.found {
		reasons[f.place]++
	}
	var out []*refusal.Error
	for f, paths := range c.found {
		slices.Sort(paths)
		place := f.place
		if reasons[place] > 1 {
			place += " (" + paths[0] + ")"
		}
		where := strings.Join(paths[:min(len(paths), maxPaths)], ", ")
		if n := len(paths); n > maxPaths {
			where += fmt.Sprintf(" and %d more", n-maxPaths)
		}
		out = append(out, refusal.New(refusal.Layout, place, f.reason+" (in "+where+"); a running process holds data in the old form"))
	}
	slices.SortFunc(out, func(a, b *refusal.Error) int {
		return strings.Compare(a.Place+"\x00"+a.Reason, b.Place+"\x00"+b.Reason)
	})
	return out
}
