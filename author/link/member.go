package link

import (
	"fmt"
	"slices"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// member is an object that is part of the binary.
type member struct {
	pair  *objdiff.Pair
	group int // of the binary's table that lists its local names, or 0
}

// oldFunction returns the function of the old object called name, or nil.
func (m *member) oldFunction(name string) *object.Function {
	if m.pair.Before == nil {
		return nil
	}
	i := slices.IndexFunc(m.pair.Before.Functions, func(f *object.Function) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return m.pair.Before.Functions[i]
}

// verdict says how one old object and the binary relate.
type verdict struct {
	group  int
	found  []uint64 // addresses of its functions in the binary
	names  int      // of functions and variables that were found
	differ string   // what differs first, or empty
	clash  bool     // two groups fit equally well
}

// findMembers decides for each object that differs between the builds whether
// it is part of the binary, and proves it by the bytes of all its functions.
func (l *linker) findMembers() error {
	claimed := map[uint64]*member{}
	for _, p := range l.in.Pairs {
		if !p.Touched() {
			continue
		}
		if p.Before == nil {
			continue // counts only when something needs it
		}
		if p.After.LTO || p.Before.LTO {
			return p.Refusals[0]
		}
		v := l.judge(p.Before)
		switch {
		case len(v.found) == 0:
			l.notices = append(l.notices, p.Path+" differs but is not part of the binary")
			continue
		case v.differ != "" && l.belongsToOthers(p, v.found):
			l.notices = append(l.notices, p.Path+" differs but is not part of the binary, which has another build of the same functions")
			continue
		case v.differ != "":
			return refusal.New(refusal.Foreign, p.Path+" "+v.differ, l.compilers(p))
		case v.clash:
			return refusal.New(refusal.Symbol, p.Path, "several files of the same name in the binary have the same code")
		}
		m := &member{pair: p, group: v.group}
		if twin := claimed[v.found[0]]; twin != nil {
			if !sameChange(twin.pair, p) {
				return refusal.New(refusal.Symbol, p.Path, "it claims to be the same part of the binary as "+twin.pair.Path+", and their new code differs")
			}
			continue
		}
		for _, at := range v.found {
			claimed[at] = m
		}
		l.members = append(l.members, m)
	}
	return nil
}

// compilers says that the old build is not the binary, and why that may be.
func (l *linker) compilers(p *objdiff.Pair) string {
	reason := "the old build is not the binary: another compiler, other flags or other sources"
	known := l.in.Names.Compiler
	for _, c := range p.Before.Compiler {
		if len(known) > 0 && !slices.Contains(known, c) {
			return reason + fmt.Sprintf(" (built by %s, the binary by %s)", c, known[0])
		}
	}
	return reason
}

// judge compares an old object with the binary.
func (l *linker) judge(o *object.Object) verdict {
	groups := append([]int{0}, l.stock.groups(o.Source)...)
	var best verdict
	for _, g := range groups {
		v := l.judgeGroup(o, g)
		switch {
		case len(best.found) == 0,
			best.differ != "" && v.differ == "" && len(v.found) > 0,
			(best.differ == "") == (v.differ == "") && v.names > best.names:
			best = v
		case g != 0 && best.group != 0 && v.differ == "" && best.differ == "" && v.names == best.names:
			best.clash = true
		}
	}
	return best
}

func (l *linker) judgeGroup(o *object.Object, group int) verdict {
	v := verdict{group: group}
	p := &proof{stock: l.stock, obj: o, group: group}
	for _, f := range o.Functions {
		n, ok := l.stock.symbol(o, group, f.Symbol)
		if !ok || n.Size == 0 {
			continue
		}
		v.found = append(v.found, n.Addr)
		v.names++
		if why := p.function(f, n); why != "" && v.differ == "" {
			v.differ = f.Name + ": " + why
		}
	}
	for _, s := range o.Sections {
		if s == nil || (s.Class != object.Writable && s.Class != object.Constant && s.Class != object.ThreadLocal) {
			continue
		}
		for _, i := range s.Defs {
			n, ok := l.stock.symbol(o, group, i)
			if !ok {
				continue
			}
			v.names++
			if why := p.data(s, i, n); why != "" && v.differ == "" {
				v.differ = o.Symbols[i].Name + ": " + why
			}
		}
	}
	return v
}

// belongsToOthers reports whether other objects of the old build are proven to
// be the functions at all the addresses. Libraries are often built twice, with
// and without position independence, and programs beside them share names.
func (l *linker) belongsToOthers(p *objdiff.Pair, addresses []uint64) bool {
	owned := map[uint64]bool{}
	for _, other := range l.in.Pairs {
		if other == p || other.Before == nil {
			continue
		}
		if v := l.judge(other.Before); v.differ == "" {
			for _, at := range v.found {
				owned[at] = true
			}
		}
	}
	return !slices.ContainsFunc(addresses, func(at uint64) bool { return !owned[at] })
}

// sameChange reports whether two pairs carry the same new code.
func sameChange(a, b *objdiff.Pair) bool {
	equal := func(x, y *object.Function) bool {
		return x.Name == y.Name && string(x.Section.Data) == string(y.Section.Data) && len(x.Section.Relocs) == len(y.Section.Relocs)
	}
	return slices.EqualFunc(a.Changed, b.Changed, equal) && slices.EqualFunc(a.New, b.New, equal)
}

// indexNew lists the global names that the new build has and the old one and
// the binary do not.
func (l *linker) indexNew() {
	l.fresh = map[string][]definition{}
	isMember := map[*objdiff.Pair]*member{}
	for _, m := range l.members {
		isMember[m.pair] = m
	}
	for _, p := range l.in.Pairs {
		m := isMember[p]
		if p.After == nil || (m == nil && p.Before != nil) {
			continue
		}
		if m == nil {
			m = &member{pair: p}
		}
		for i := range p.After.Symbols {
			y := &p.After.Symbols[i]
			if p.After.SectionOf(i) == nil || p.After.Local(i) || y.Name == "" {
				continue
			}
			if _, ok, _ := l.stock.global(y.Name); !ok {
				l.fresh[y.Name] = append(l.fresh[y.Name], definition{m, i})
			}
		}
	}
}

// findMoved refuses names that moved from one object to another: the code in
// the binary would be compared with nothing.
func (l *linker) findMoved() error {
	defined := map[string]*objdiff.Pair{}
	for _, p := range l.in.Pairs {
		if p.After == nil {
			continue
		}
		for i := range p.After.Symbols {
			if p.After.SectionOf(i) != nil && !p.After.Local(i) {
				defined[p.After.Symbols[i].Name] = p
			}
		}
	}
	for _, p := range l.in.Pairs {
		if p.Before == nil {
			continue
		}
		here := map[string]bool{}
		if p.After != nil {
			for i := range p.After.Symbols {
				if p.After.SectionOf(i) != nil {
					here[p.After.Symbols[i].Name] = true
				}
			}
		}
		for i := range p.Before.Symbols {
			name := p.Before.Symbols[i].Name
			to := defined[name]
			if p.Before.SectionOf(i) == nil || p.Before.Local(i) || name == "" || here[name] || to == nil || to.Before != nil && definesGlobal(to.Before, name) {
				continue
			}
			if n, ok, _ := l.stock.global(name); ok && n.Size > 0 {
				return refusal.New(refusal.Symbol, p.Path+" "+name, "it moved to "+to.Path+"; what changed of it cannot be told")
			}
		}
	}
	return nil
}

func definesGlobal(o *object.Object, name string) bool {
	for i := range o.Symbols {
		if o.Symbols[i].Name == name && o.SectionOf(i) != nil && !o.Local(i) {
			return true
		}
	}
	return false
}
