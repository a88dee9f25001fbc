package kernel

import (
	"bytes"
	"debug/elf"
	"math"
	"slices"
	"strings"

	"livemend.dev/livemend/author/match"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// proof is what comparing an object of the old build with the stock object
// shows: that its functions are the ones that run on servers, and through their
// code where everything lies that they refer to.
type proof struct {
	stock  *stock
	obj    *object.Object
	at     map[int]uint64 // symbols of obj in the stock object
	proven int
	twins  []twin

	overridden map[string]bool // weak functions of which another object has the one that runs
}

// twin is a function that the stock object has several times with equal code:
// a copy of an inline function of a header in each object that uses it.
type twin struct {
	symbol int
	at     []uint64
}

// prove compares every function of o that runs after start-up. Another
// compiler, configuration or source shows here.
func prove(s *stock, o *object.Object) (*proof, []error) {
	p := &proof{stock: s, obj: o, at: map[int]uint64{}, overridden: map[string]bool{}}
	var refused []error
	for _, f := range o.Functions {
		if startup(f.Section.Name) || f.Section.Data == nil {
			continue
		}
		if err := p.function(f); err != nil {
			refused = append(refused, err)
			continue
		}
		p.proven++
	}
	p.tellTwins()
	return p, refused
}

// tellTwins finds which of several equal functions is the object's: linkers keep
// an object's functions together, so it is the one among the others.
func (p *proof) tellTwins() {
	low, high := uint64(math.MaxUint64), uint64(0)
	for _, f := range p.obj.Functions {
		// Rarely used parts lie elsewhere, and so do sections with names of their own.
		if addr, ok := p.at[f.Symbol]; ok && f.Section.Name == ".text."+f.Name {
			low, high = min(low, addr), max(high, addr)
		}
	}
	for _, t := range p.twins {
		if _, known := p.at[t.symbol]; known {
			continue // code of the object refers to it
		}
		within := slices.DeleteFunc(slices.Clone(t.at), func(addr uint64) bool { return addr < low || addr > high })
		if len(within) == 1 {
			p.at[t.symbol] = within[0]
		}
	}
}

// startup reports whether a section is used only while the kernel or a module
// starts or ends.
func startup(section string) bool {
	return strings.HasPrefix(section, ".init") || strings.HasPrefix(section, ".exit")
}

func (p *proof) function(f *object.Function) error {
	y := &p.obj.Symbols[f.Symbol]
	place := p.obj.Path + " " + f.Name
	candidates := p.stock.defined(f.Name)
	if len(candidates) == 0 {
		return refusal.New(refusal.Foreign, place, "the stock "+p.stock.object+" has no function of this name, so this build is not the distribution's: another compiler, configuration or source")
	}
	size := y.Size
	if size == 0 {
		size = f.Section.Size - y.Value
	}
	var why string
	var fits []int
	found := map[int]map[int]uint64{}
	for _, i := range candidates {
		at := map[int]uint64{}
		if differs := p.compare(f, y.Value, y.Value+size, i, at); differs != "" {
			why = differs
			continue
		}
		fits = append(fits, i)
		found[i] = at
	}
	switch {
	case len(fits) == 0 && y.Bind == elf.STB_WEAK:
		p.overridden[f.Name] = true
		return nil
	case len(fits) == 0:
		return refusal.New(refusal.Foreign, place, "the stock "+p.stock.object+"'s is another one ("+why+"), so this build is not the distribution's: another compiler, configuration or source")
	case len(fits) > 1:
		t := twin{symbol: f.Symbol}
		for _, i := range fits {
			t.at = append(t.at, p.stock.symbols[i].addr)
		}
		p.twins = append(p.twins, t)
		return nil
	}
	p.at[f.Symbol] = p.stock.symbols[fits[0]].addr
	for symbol, addr := range found[fits[0]] {
		p.at[symbol] = addr
	}
	return nil
}

// fill is what linkers put between functions.
const fill = 0xcc

// compare says how f differs from stock symbol i and notes what it refers to.
func (p *proof) compare(f *object.Function, from, to uint64, i int, at map[int]uint64) string {
	theirs, ok := p.stock.extent(i)
	if !ok {
		return "its end is not known"
	}
	c := match.Code{Section: f.Section, From: from, To: to, Theirs: theirs, Addr: p.stock.symbols[i].addr}
	c.Absolute = func(r object.Reloc, addr int64) string { return p.refers(f.Section, r, uint64(addr), at) }
	c.Value = func(r object.Reloc, addr int64, _ bool) string { return c.Absolute(r, addr) }
	if n := int(to - from); len(theirs) >= n {
		c.Theirs = theirs[:n]
		if c.Differs() == "" {
			return ""
		}
	}
	ours := f.Section.Data[from:to]
	end := len(theirs)
	for end > 0 && theirs[end-1] == fill {
		end--
	}
	c.Theirs = theirs[:end]
	for n := len(ours); n > 0 && ours[n-1] == fill && len(c.Theirs) < len(theirs); n-- {
		c.Theirs = theirs[:len(c.Theirs)+1] // the traps that belong to the code
	}
	clear(at)
	return c.Differs()
}

// refers says what is wrong when the stock code has addr for the symbol of r, and
// notes the address when nothing is.
func (p *proof) refers(s *object.Section, r object.Reloc, addr uint64, at map[int]uint64) string {
	i, y := r.Symbol, &p.obj.Symbols[r.Symbol]
	to, off, exact := p.obj.TargetOf(s, r)
	switch {
	case y.Section == object.Undefined:
	case to == nil, !exact:
		return ""
	default:
		target := addr + uint64(off-int64(y.Value))
		if to.Class == object.Merged {
			return p.element(to, off, target)
		}
		var ok bool
		if i, ok = p.obj.Covering(to, off); !ok {
			return ""
		}
		y = &p.obj.Symbols[i]
		addr = target - uint64(off-int64(y.Value))
	}
	if same, known := p.stock.named(y.Name, addr); known && !same {
		return "it refers to " + y.Name + " where the stock code refers to something else"
	} else if !known {
		return "" // labels and the like are in no table
	}
	if old, ok := at[i]; ok && old != addr {
		return "it refers to " + y.Name + " at two places"
	}
	at[i] = addr
	return ""
}

// element compares a string or constant that linkers merge.
func (p *proof) element(s *object.Section, off int64, addr uint64) string {
	if off < 0 || uint64(off) >= s.Size || len(s.Relocs) > 0 {
		return ""
	}
	ours := element(s, off)
	if theirs, ok := p.stock.read(addr, uint64(len(ours))); ok && !bytes.Equal(ours, theirs) {
		return "it refers to another text or constant than the stock code"
	}
	return ""
}

// element returns the string, with its end, or constant at off of a section
// that linkers merge.
func element(s *object.Section, off int64) []byte {
	rest := s.Data[off:]
	entry := int(max(s.Entry, 1))
	if !s.Strings {
		return rest[:min(entry, len(rest))]
	}
	for end := 0; end+entry <= len(rest); end += entry {
		if unit := rest[end : end+entry]; bytes.Count(unit, []byte{0}) == entry {
			return rest[:end+entry]
		}
	}
	return rest
}

// where returns the address of symbol i of the proven object in the stock object:
// where the code that was compared refers to, or the only one of its name.
func (p *proof) where(i int) (addr uint64, ok bool) {
	if addr, ok := p.at[i]; ok {
		return addr, true
	}
	all := p.stock.defined(p.obj.Symbols[i].Name)
	if len(all) != 1 {
		return 0, false
	}
	return p.stock.symbols[all[0]].addr, true
}
