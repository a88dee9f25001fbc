package kernel

import (
	"slices"
	"strings"

	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
)

// resolve says what relocation r of s becomes in the patch.
func (c *carrier) resolve(s *object.Section, r object.Reloc, name string) (*relocatable.Symbol, int64, error) {
	y := &c.obj.Symbols[r.Symbol]
	bad := func(kind refusal.Kind, what, reason string) (*relocatable.Symbol, int64, error) {
		return nil, 0, refusal.New(kind, c.pair.Path+" "+name, "its reference to "+what+": "+reason)
	}
	to, at, exact := c.obj.TargetOf(s, r)
	if to == nil {
		if y.Section != object.Undefined {
			return bad(refusal.Relocation, y.Name, "it lies in a section that is not loaded")
		}
		z, err := c.external(y.Name, name)
		return z, r.Addend, err
	}
	// The addend to a symbol that stands for offset 0 of what at is relative to.
	addend := r.Addend + int64(y.Value) - at
	switch {
	case to.Name == asides:
		piece, err := c.aside(to, at, name)
		if err != nil {
			return nil, 0, err
		}
		return c.whole(piece), addend, nil
	case to.Class == object.Merged:
		if !exact || at < 0 || uint64(at) >= to.Size || len(to.Relocs) > 0 {
			return bad(refusal.Undecodable, to.Name, "it cannot be told which text or constant is meant")
		}
		off := c.put(element(to, at), to.Align)
		return c.whole(c.pool), addend + int64(off), nil
	case to.Class == object.Code:
		return c.codeRef(s, r, to, at, addend, name)
	case to.Class == object.Initialiser:
		return bad(refusal.Initialiser, to.Name, "it is gone once the kernel runs")
	}
	i, covered := c.obj.Covering(to, at)
	if !covered {
		if to.Class == object.Constant {
			x, err := c.copied(to, 0, to.Size, name)
			return c.wholeOr(x), addend + at, err
		}
		return bad(refusal.Symbol, to.Name, "it is a variable without a name")
	}
	if !exact && len(to.Defs) > 1 {
		return bad(refusal.Undecodable, to.Name, "it cannot be told which variable is meant")
	}
	v := &c.obj.Symbols[i]
	inside := at - int64(v.Value)
	old, isOld := c.pair.Old(i)
	switch {
	case restarted[to.Name], !isOld && to.Class == object.Constant, !isOld && restarts(v.Name), isOld && to.Class == object.Constant && c.labelled(to, v):
		x, err := c.copied(to, v.Value, v.Value+v.Size, name)
		return c.wholeOr(x), addend + inside, err
	case !isOld:
		return bad(refusal.Data, v.Name, "it is a new variable; a later level of the patch would start it anew, so what it holds would be lost")
	}
	addr, ok := c.proof.where(old)
	if !ok {
		if to.Class == object.Constant && to.Size > 0 && c.obj.Local(i) && strings.Contains(v.Name, ".") {
			x, err := c.copied(to, v.Value, v.Value+v.Size, name) // of the compiler's making; a copy is as good
			return c.wholeOr(x), addend + inside, err
		}
		return bad(refusal.Symbol, v.Name, "it cannot be told where it is in the stock "+c.proof.stock.object)
	}
	z, err := c.known(c.proof.stock, c.pair.Before.Symbols[old].Name, addr, name)
	if err != nil {
		// The view may have put a dot into its name.
		z, err = c.known(c.proof.stock, c.proof.obj.Symbols[old].Name, addr, name)
	}
	return z, addend + inside, err
}

func (c *carrier) wholeOr(x *relocatable.Section) *relocatable.Symbol {
	if x == nil {
		return nil
	}
	return c.whole(x)
}

// labelled reports whether a constant holds places inside functions that travel.
func (c *carrier) labelled(s *object.Section, v *object.Symbol) bool {
	return slices.ContainsFunc(s.Relocs, func(r object.Reloc) bool {
		to, at, _ := c.obj.TargetOf(s, r)
		return r.Off >= v.Value && r.Off < v.Value+v.Size && to != nil && to.Class == object.Code && c.code[to.Index] != nil && at != 0
	})
}

// restarts reports whether a new static is of a kind that may start anew: limits
// on how often something is logged, and keys of the lock checker.
func restarts(name string) bool {
	switch plain(name) {
	case "_rs", "__already_done", "__warned", "__print_once", "__key":
		return true
	}
	return false
}

// codeRef resolves a reference to code of the same object.
func (c *carrier) codeRef(s *object.Section, r object.Reloc, to *object.Section, at, addend int64, name string) (*relocatable.Symbol, int64, error) {
	bad := func(kind refusal.Kind, what, reason string) (*relocatable.Symbol, int64, error) {
		return nil, 0, refusal.New(kind, c.pair.Path+" "+name, "its reference to "+what+": "+reason)
	}
	f := c.obj.FunctionAt(to, at)
	if f == nil {
		return bad(refusal.Sections, to.Name, "it is code without a name")
	}
	inside := at - int64(c.obj.Symbols[f.Symbol].Value)
	new := c.code[to.Index]
	switch {
	case new != nil && (s.Class != object.Code || s.Index == to.Index || s.IsBranch(r) || inside != 0 || f.Parent() != ""):
		if s.Class != object.Code && inside == 0 && carried[s.Name] == 0 {
			break // a table of functions; those that are replaced keep their address
		}
		return c.whole(new), addend + at, nil
	case new != nil && c.pair.IsNew(f.Name):
		return bad(refusal.Data, f.Name, "the address of a new function would be held where the kernel does not look before the patch is unloaded")
	case new != nil && c.helpers[f.Name]:
		return bad(refusal.Branch, f.Name, "it cannot be replaced by itself, as it does not call the tracer at its start, and its address is held")
	case new == nil && inside != 0:
		return bad(refusal.Sections, f.Name, "a place inside a function that did not change")
	}
	// A pointer to a function is the old one's, whose entry leads to the new code:
	// it may outlive the patch.
	old := slices.IndexFunc(c.proof.obj.Functions, func(o *object.Function) bool { return o.Name == f.Name })
	if old < 0 {
		return bad(refusal.Symbol, f.Name, "the old build has no such function")
	}
	addr, ok := c.proof.where(c.proof.obj.Functions[old].Symbol)
	if !ok {
		return bad(refusal.Symbol, f.Name, "it cannot be told which function of this name in the stock "+c.proof.stock.object+" it is")
	}
	z, err := c.known(c.proof.stock, f.Name, addr, name)
	return z, addend + inside, err
}

// known returns the symbol for something at a known address of a stock object.
func (c *carrier) known(s *stock, what string, addr uint64, name string) (*relocatable.Symbol, error) {
	if s == c.kernel && c.exports[what] == klp.Vmlinux && len(s.defined(what)) == 1 {
		return c.imported(what), nil
	}
	position, ok := s.position(what, addr)
	if !ok {
		return nil, refusal.New(refusal.Symbol, c.pair.Path+" "+name, "its reference to "+what+": the stock "+s.object+" lists no such symbol where it lies")
	}
	return c.refer(c.ref(s.object, what, position)), nil
}

// ref returns how the livepatch code finds something.
func (c *carrier) ref(object, name string, position uint) klp.Ref {
	r := klp.Ref{Object: object, Name: name, Position: position}
	if object != klp.Vmlinux {
		r.For = c.proof.stock.object
	}
	return r
}

// trampoline is in front of the names of what static calls call. A name with it
// is changed at run time wherever the module loader finds it called, which goes
// wrong where another module owns it; by another name the trampoline itself is
// called, which is always right.
const trampoline = "__SCT__"

// external resolves a name that another object defines.
func (c *carrier) external(what, name string) (*relocatable.Symbol, error) {
	own := c.proof.stock
	if own != c.kernel {
		if y, err := c.global(own, what, name); y != nil || err != nil {
			return y, err
		}
	}
	if c.exports[what] == klp.Vmlinux {
		return c.imported(what), nil
	}
	if y, err := c.global(c.kernel, what, name); y != nil || err != nil {
		return y, err
	}
	if by := c.exports[what]; by != "" && own != c.kernel {
		return c.refer(c.ref(by, what, 0)), nil
	}
	return nil, refusal.New(refusal.Import, c.pair.Path+" "+name, "its reference to "+what+": the stock kernel has no such symbol; the fix needs something that is not there yet")
}

// global returns the symbol for what a stock object offers to its other parts;
// nil when it offers none.
func (c *carrier) global(s *stock, what, name string) (*relocatable.Symbol, error) {
	var found []int
	for _, i := range s.defined(what) {
		if s.symbols[i].global {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		// Hidden names and those of the linker are in the table as local ones.
		found = s.defined(what)
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return c.known(s, what, s.symbols[found[0]].addr, name)
	}
	return nil, refusal.New(refusal.Symbol, c.pair.Path+" "+name, "its reference to "+what+": "+s.object+" has several of that name")
}
