// Package link turns the functions that differ between two builds into the
// image of a live patch for one exact stock binary.
//
// It first proves that the old build is the binary: every function of every
// object that it touches must have the bytes that the binary has. Then it
// resolves each reference of the new code for good: to the binary's own
// functions and variables by its symbols, to other libraries through the
// binary's own slots (which keeps versions and interposition), and to code,
// constants and new variables that travel in the image. Names that the binary
// does not import are left to each process, by version. What it cannot resolve
// beyond doubt it refuses. No linker is needed where the patch is applied.
//
// The package is pure and deterministic; it reads no files.
package link

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch/image"
)

// Input is what one patch is linked from.
type Input struct {
	Pairs []*objdiff.Pair // the comparison of the two builds
	Stock *object.Binary  // runs on the servers
	Names *object.Binary  // has Stock's build-id and a symbol table; may be Stock itself

	// Where versions of names come from that the binary does not import: the
	// result of linking the new build, or else the libraries that Stock needs,
	// in the order in which it names them. Both may be missing.
	Fixed        *object.Binary
	Dependencies []*object.Binary

	// Review, when it is not nil, is given the pairs that are part of the binary
	// or of the patch, and returns what else stands against it.
	Review func(part []*objdiff.Pair) []*refusal.Error
}

// Output is a linked patch.
type Output struct {
	File      *image.File
	Functions []Function // by name
	Touched   []*objdiff.Pair
	Notices   []string // for people to read
}

// Function is one function that the patch replaces or adds.
type Function struct {
	Name    string
	Object  string // path of the object that holds it
	OldSize int64  // bytes in the stock binary; 0 for a new function
	NewSize int64
}

// Link makes the image. The error joins one or more *refusal.Error when the
// change cannot become a live patch.
func Link(in Input) (*Output, error) {
	if in.Stock.Go {
		return nil, refusal.New(refusal.Language, "the binary", "it is a Go program: its runtime walks stacks and would meet code that it does not know")
	}
	if in.Stock.BuildID != in.Names.BuildID {
		return nil, refusal.New(refusal.Foreign, "the twin", "its build-id is "+string(in.Names.BuildID)+", the binary's is "+string(in.Stock.BuildID)+"; it describes another binary")
	}
	if len(in.Names.Named) == 0 {
		return nil, refusal.New(refusal.Symbol, "the binary", "it has no symbol table; give the unstripped build of it, or its debug symbols, as its twin")
	}
	l := &linker{in: in, stock: &stock{bin: in.Stock, names: in.Names}}
	if err := l.findMembers(); err != nil {
		return nil, err
	}
	l.indexNew()
	if err := l.findMoved(); err != nil {
		return nil, err
	}
	hunks, err := l.collect()
	if err != nil {
		return nil, err
	}
	return l.finish(hunks)
}

// linker is the state of one run.
type linker struct {
	in      Input
	stock   *stock
	members []*member
	fresh   map[string][]definition // global names that only the new build has
	notices []string

	layout
}

// definition is where a global name is defined.
type definition struct {
	member *member
	symbol int
}

// hunk is a redirection whose new code has no place in the image yet.
type hunk struct {
	image.Hunk
	to      *object.Section
	object  string
	newSize int64
}

// collect makes the hunks and brings everything into the layout that their
// code needs.
func (l *linker) collect() ([]hunk, error) {
	var hunks []hunk
	var refused []error
	for _, m := range l.members {
		for _, r := range m.pair.Refusals {
			refused = append(refused, r)
		}
		l.notices = append(l.notices, m.pair.Notices...)
	}
	for _, m := range l.members {
		for _, f := range m.pair.Changed {
			h, err := l.hunkFor(m, f)
			if err != nil {
				refused = append(refused, err)
				continue
			}
			if h != nil {
				hunks = append(hunks, *h)
			}
			l.place(m, f.Section)
		}
	}
	if len(refused) == 0 {
		refused = l.resolveAll()
	}
	for _, r := range l.review() {
		refused = append(refused, r)
	}
	if len(refused) > 0 {
		return nil, errors.Join(refused...)
	}
	if len(hunks) == 0 {
		return nil, refusal.New(refusal.Nothing, "the two builds", "no function of the binary differs between them")
	}
	slices.SortFunc(hunks, func(a, b hunk) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(hunks); i++ {
		if a, b := hunks[i-1], hunks[i]; a.Off+uint64(a.Size) > b.Off {
			return nil, refusal.New(refusal.Symbol, b.Name, "it lies over "+a.Name+" in the binary")
		}
	}
	return hunks, nil
}

// review asks for what else stands against the patch.
func (l *linker) review() []*refusal.Error {
	if l.in.Review == nil {
		return nil
	}
	var part []*objdiff.Pair
	for _, m := range l.members {
		part = append(part, m.pair)
	}
	for _, p := range l.order {
		if pair := p.member.pair; !slices.Contains(part, pair) {
			part = append(part, pair)
		}
	}
	return l.in.Review(part)
}

func (l *linker) finish(hunks []hunk) (*Output, error) {
	f, err := l.build()
	if err != nil {
		return nil, err
	}
	f.BuildID, f.Arch = l.in.Stock.BuildID, "amd64"
	out := &Output{File: f, Notices: l.notices}
	for _, h := range hunks {
		h.New = l.addressOf(h.to)
		f.Hunks = append(f.Hunks, h.Hunk)
		out.Functions = append(out.Functions, Function{Name: h.Name, Object: h.object, OldSize: int64(h.Size), NewSize: h.newSize})
	}
	for _, p := range l.order {
		if p.section.Class == object.Code && !slices.ContainsFunc(hunks, func(h hunk) bool { return h.to == p.section }) {
			out.Functions = append(out.Functions, Function{Name: p.section.Functions[0].Name, Object: p.member.pair.Path, NewSize: int64(p.section.Size)})
		}
	}
	slices.SortStableFunc(out.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Object, b.Object))
	})
	for _, m := range l.members {
		out.Touched = append(out.Touched, m.pair)
	}
	return out, f.Check()
}

// hunkFor returns the redirection of changed function f. It is nil for a cold
// part that nothing enters from outside and that is too small to mark.
func (l *linker) hunkFor(m *member, f *object.Function) (*hunk, error) {
	old := m.oldFunction(f.Name)
	place := m.pair.Path + " " + f.Name
	n, ok := l.stock.function(m, m.pair.Before, old)
	if !ok {
		return nil, refusal.New(refusal.Foreign, place, "the old function is not in the stock binary")
	}
	body, ok := l.in.Stock.Read(n.Addr, n.Size)
	if !ok || n.Size == 0 || !l.in.Stock.Executable(n.Addr) {
		return nil, refusal.New(refusal.Symbol, place, "the binary has no code at its address")
	}
	h := &hunk{to: f.Section, object: m.pair.Path, newSize: int64(f.Section.Size)}
	h.Name, h.Off, h.Size, h.OldHash = f.Name, n.Addr, uint32(n.Size), sha256.Sum256(body)
	copy(h.Entry[:], body)
	jump := h.JumpOff()
	cold := f.Parent() != ""
	if h.Size < jump+image.JumpSize {
		if cold {
			return nil, nil
		}
		return nil, refusal.New(refusal.Small, place, "the old function is too small for a jump")
	}
	// Nobody but its own function enters a cold part; it is redirected so that
	// threads inside it are seen.
	if !cold {
		if err := checkEntry(m.pair.Before, old, int64(jump)); err != nil {
			return nil, err
		}
	}
	return h, nil
}
