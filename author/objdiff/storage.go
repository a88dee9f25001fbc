package objdiff

import (
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// variable is a named variable of an object: writable, thread-local or common.
type variable struct {
	symbol int
	class  object.Class
	size   uint64
	users  []string // functions that refer to it, sorted; clones under their origin's name
}

// variables returns the named variables of v by their name without the
// compiler's number. file-scope names and numbered ones are kept apart.
func (v *side) variables() map[string][]variable {
	users := v.users()
	out := map[string][]variable{}
	add := func(i int, class object.Class) {
		y := &v.obj.Symbols[i]
		key := base(y.Name)
		if key != y.Name {
			key += ".N"
		}
		out[key] = append(out[key], variable{symbol: i, class: class, size: y.Size, users: users[i]})
	}
	for _, s := range v.obj.Sections {
		if s != nil && (s.Class == object.Writable || s.Class == object.ThreadLocal) {
			for _, i := range s.Defs {
				add(i, s.Class)
			}
		}
	}
	for i := range v.obj.Symbols {
		if v.obj.Symbols[i].Section == object.Common {
			add(i, object.Writable)
		}
	}
	return out
}

// users returns for each variable the functions that refer to it.
func (v *side) users() map[int][]string {
	out := map[int][]string{}
	for _, f := range v.obj.Functions {
		for _, r := range f.Section.Relocs {
			to, at, _ := v.obj.TargetOf(f.Section, r)
			if to == nil || (to.Class != object.Writable && to.Class != object.ThreadLocal) {
				continue
			}
			if i, ok := v.obj.Covering(to, at); ok {
				out[i] = append(out[i], origin(f.Name))
			}
		}
	}
	for i := range out {
		slices.Sort(out[i])
		out[i] = slices.Compact(out[i])
	}
	return out
}

// matchVariables says which variable of after is which of before. Names of
// static locals carry numbers that shift when others come or go, so those are
// told apart by the functions that use them; a wrong guess would give a
// function another one's state, so a doubt is a refusal.
func (p *Pair) matchVariables(before, after *side) {
	was, is := before.variables(), after.variables()
	for _, key := range sortedKeys(is) {
		if !strings.HasSuffix(key, ".N") {
			if old := was[key]; len(old) > 0 {
				p.old[is[key][0].symbol] = old[0].symbol
			}
			continue
		}
		p.matchStatics(key, was[key], is[key], after)
	}
	for _, list := range is {
		for _, n := range list {
			if _, ok := p.old[n.symbol]; !ok {
				after.names[n.symbol] = "new " + after.obj.Symbols[n.symbol].Name
			}
		}
	}
}

func (p *Pair) matchStatics(key string, was, is []variable, after *side) {
	match := func(n, o variable) {
		p.old[n.symbol] = o.symbol
		after.names[n.symbol] = p.Before.Symbols[o.symbol].Name
	}
	sameNames := len(was) == len(is)
	for i := 0; sameNames && i < len(is); i++ {
		sameNames = p.Before.Symbols[was[i].symbol].Name == p.After.Symbols[is[i].symbol].Name &&
			was[i].size == is[i].size && slices.Equal(was[i].users, is[i].users)
	}
	if sameNames {
		for i := range is {
			match(is[i], was[i])
		}
		return
	}
	// First those that only one variable on each side can be.
	same := func(a, b variable) bool {
		return a.class == b.class && a.size == b.size && slices.Equal(a.users, b.users)
	}
	count := func(list []variable, like variable) (n, at int) {
		for i, o := range list {
			if same(o, like) {
				n, at = n+1, i
			}
		}
		return n, at
	}
	var restWas, restIs []variable
	taken := map[int]bool{}
	for _, n := range is {
		here, _ := count(is, n)
		there, at := count(was, n)
		if here == 1 && there == 1 && len(n.users) > 0 {
			match(n, was[at])
			taken[at] = true
			continue
		}
		restIs = append(restIs, n)
	}
	for i, o := range was {
		if !taken[i] {
			restWas = append(restWas, o)
		}
	}
	if len(restIs) == 1 && len(restWas) == 1 && share(restIs[0], restWas[0]) {
		match(restIs[0], restWas[0])
		return
	}
	if len(restWas) == 0 {
		return // what is left is new
	}
	for _, n := range restIs {
		p.refuse(refusal.Symbol, p.After.Symbols[n.symbol].Name, "it cannot be told which of the old static variables called "+strings.TrimSuffix(key, ".N")+" it is")
	}
}

// share reports whether a function uses both.
func share(a, b variable) bool {
	return slices.ContainsFunc(a.users, func(f string) bool { return slices.Contains(b.users, f) })
}

// compareVariables refuses variables that a running process holds in another
// form than new code expects.
func (p *Pair) compareVariables(before, after *side) {
	for _, i := range sortedKeys(p.old) {
		n, o := &p.After.Symbols[i], &p.Before.Symbols[p.old[i]]
		sn, so := p.After.SectionOf(i), p.Before.SectionOf(p.old[i])
		var what string
		switch {
		case n.Size != o.Size:
			what = fmt.Sprintf("its size changed from %d to %d bytes", o.Size, n.Size)
		case (sn == nil) != (so == nil) || (sn != nil && sn.Class != so.Class):
			what = "it moved between kinds of storage"
		case sn != nil && before.definition(so, p.old[i]) != after.definition(sn, i):
			what = "its initial value changed"
		}
		if what == "" {
			continue
		}
		kind := refusal.Data
		if sn != nil && sn.Class == object.ThreadLocal {
			kind = refusal.ThreadLocal
		}
		p.refuse(kind, n.Name, what+"; a running process keeps the old one")
	}
	p.compareKinds()
	p.compareNamelessData(before, after)
}

// compareKinds refuses names that other objects use for another kind of thing.
func (p *Pair) compareKinds() {
	was := map[string]int{}
	for i := range p.Before.Symbols {
		if p.Before.SectionOf(i) != nil && !p.Before.Local(i) {
			was[p.Before.Symbols[i].Name] = i
		}
	}
	for i := range p.After.Symbols {
		s := p.After.SectionOf(i)
		o, ok := was[p.After.Symbols[i].Name]
		if s != nil && ok && !p.After.Local(i) && p.Before.SectionOf(o).Class != s.Class {
			p.refuse(refusal.Data, p.After.Symbols[i].Name, "it became another kind of thing, and other objects use the old one")
		}
	}
}

// compareNamelessData holds writable bytes without a name to equality.
func (p *Pair) compareNamelessData(before, after *side) {
	keys := func(v *side) map[string]string {
		out := map[string]string{}
		for _, s := range v.obj.Sections {
			if s == nil || s.Size == 0 || (s.Class != object.Writable && s.Class != object.ThreadLocal) {
				continue
			}
			if len(s.Defs) == 0 {
				out[s.Name] += v.section(s)
			}
		}
		return out
	}
	was, is := keys(before), keys(after)
	for _, name := range union(was, is) {
		if was[name] != is[name] {
			p.refuse(refusal.Data, name, "writable data without a name changed")
		}
	}
}

// compilerMade reports whether a constant's name is of the compiler's making:
// nobody can compare its address, so a copy is as good.
func compilerMade(name string) bool {
	switch base(name) {
	case "CSWTCH", "C", "C.0", "__func__", "__FUNCTION__", "__PRETTY_FUNCTION__":
		return true
	}
	return strings.HasPrefix(name, "CSWTCH.") || strings.HasPrefix(name, "C.")
}

// compareConstants finds the constants that stay and refuses changed ones that
// others may hold the address of.
func (p *Pair) compareConstants(before, after *side) {
	was := map[string][]int{} // by name without number
	before.eachConstant(func(s *object.Section, i int) {
		was[base(p.Before.Symbols[i].Name)] = append(was[base(p.Before.Symbols[i].Name)], i)
	})
	after.eachConstant(func(s *object.Section, i int) {
		y := &p.After.Symbols[i]
		if compilerMade(y.Name) {
			return
		}
		candidates := was[base(y.Name)]
		if len(candidates) == 0 {
			return
		}
		key := after.definition(s, i)
		var equal []int
		for _, o := range candidates {
			if before.definition(p.Before.SectionOf(o), o) == key {
				equal = append(equal, o)
			}
		}
		exact := slices.IndexFunc(equal, func(o int) bool { return p.Before.Symbols[o].Name == y.Name })
		switch {
		case exact >= 0:
			p.old[i] = equal[exact]
		case len(equal) == 1:
			p.old[i] = equal[0]
		case len(equal) > 1:
			p.refuse(refusal.Symbol, y.Name, "it cannot be told which of several equal constants it is")
		case !after.obj.Local(i):
			p.refuse(refusal.Constant, y.Name, "its content changed, and other objects read the old one")
		case after.pointsToState(s, i):
			p.refuse(refusal.Constant, y.Name, "a table of pointers changed, and objects in a running process may hold its address")
		default:
			p.Notices = append(p.Notices, p.Path+" "+y.Name+": the constant changed; the new functions carry the new one, and whoever holds its address keeps reading the old one")
		}
	})
}

func (v *side) eachConstant(do func(s *object.Section, i int)) {
	for _, s := range v.obj.Sections {
		if s != nil && s.Class == object.Constant {
			for _, i := range s.Defs {
				do(s, i)
			}
		}
	}
}

// pointsToState reports whether constant i holds the address of a function's
// entry or of a variable. Labels inside a function do not count: such a table
// belongs to its function and travels with it.
func (v *side) pointsToState(s *object.Section, i int) bool {
	y := &v.obj.Symbols[i]
	for _, r := range s.Relocs {
		if r.Off < y.Value || r.Off >= y.Value+y.Size {
			continue
		}
		to := v.obj.SectionOf(r.Symbol)
		if to == nil || to.Class == object.Writable || to.Class == object.ThreadLocal {
			return true
		}
		if to.Class == object.Code && int64(v.obj.Symbols[r.Symbol].Value)+r.Addend == 0 {
			return true
		}
	}
	return false
}

func sortedKeys[K int | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
