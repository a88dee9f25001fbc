package kernel

import (
	"slices"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
)

// pullCallers finds changed functions that a live patch cannot take over, since
// they do not call the tracer at their start, as the kernel's inline functions do
// not that the compiler did not inline. Such a function travels with its callers,
// which are added to the changed ones, and is called by them alone. It returns the
// names of those functions. Whether all that refer to them are callers is seen when
// they are taken out.
func pullCallers(p *objdiff.Pair) map[string]bool {
	helpers := map[string]bool{}
	for i := 0; i < len(p.Changed); i++ {
		f := p.Changed[i]
		old := slices.IndexFunc(p.Before.Functions, func(o *object.Function) bool { return o.Name == f.Name })
		if f.Parent() != "" || traced(p.Before, p.Before.Functions[old]) || !p.After.Local(f.Symbol) || startup(f.Section.Name) {
			continue
		}
		callers := callersOf(p.After, f)
		if len(callers) == 0 {
			continue
		}
		helpers[f.Name] = true
		for _, g := range callers {
			if !p.IsChanged(g.Name) && !p.IsNew(g.Name) {
				p.Changed = append(p.Changed, family(p, g)...)
			}
		}
	}
	return helpers
}

// family returns a function with its rarely used parts, which are one with it.
func family(p *objdiff.Pair, f *object.Function) []*object.Function {
	root := f.Name
	if parent := f.Parent(); parent != "" {
		root = parent
	}
	var out []*object.Function
	for _, g := range p.After.Functions {
		if (g.Name == root || g.Parent() == root) && !p.IsChanged(g.Name) {
			out = append(out, g)
		}
	}
	return out
}

// callersOf lists the functions with sections of their own that refer to f.
func callersOf(o *object.Object, f *object.Function) []*object.Function {
	var out []*object.Function
	for _, g := range o.Functions {
		if g == f || !g.Alone || g.Parent() == f.Name {
			continue
		}
		for _, r := range g.Section.Relocs {
			to, at, _ := o.TargetOf(g.Section, r)
			if to == f.Section && o.FunctionAt(to, at) == f {
				out = append(out, g)
				break
			}
		}
	}
	return out
}
