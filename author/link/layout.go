package link

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch/image"
)

// layout is what travels in the image, in the order in which it was found
// necessary.
type layout struct {
	order  []*placed
	at     map[*object.Section]*placed
	stubs  []stub
	stubAt map[string]int
	got    []target // entries of the image's own offset table
	gotAt  map[target]int
	names  []image.Import // what the process must look up, by when it was found necessary
	refs   []ref
}

// placed is one section that travels.
type placed struct {
	member  *member
	section *object.Section
	segment int
	off     uint32 // in the segment, once laid out
}

// stub is a jump through one of the binary's slots, or one of the image's own.
type stub struct {
	name string
	slot uint64 // address in the binary
	own  int    // 1 + number of the entry in the image's own table; 0 for none
}

// target is where a reference goes. Exactly one of the five is meant.
type target struct {
	section  *object.Section // travels; at is an offset in it
	stub     string          // name of a stub
	imported int             // 1 + number of a name that the process looks up
	fixed    bool            // at is a number, not a place
	at       uint64          // else an address in the binary
}

// ref is one field of a section that travels.
type ref struct {
	from  *placed
	reloc object.Reloc
	to    target
	slot  int // 1 + number of the entry in the image's own table; 0 for none
}

// The segments of an image, in their order.
const (
	segCode = iota
	segConst
	segData
	segments
)

// Shapes of what the linker itself adds.
const (
	slotBytes = 8
	codeAlign = 16
)

// place makes section s of m's new object travel.
func (l *linker) place(m *member, s *object.Section) {
	if l.at == nil {
		l.at, l.stubAt, l.gotAt = map[*object.Section]*placed{}, map[string]int{}, map[target]int{}
	}
	if l.at[s] != nil {
		return
	}
	p := &placed{member: m, section: s, segment: segConst}
	switch s.Class {
	case object.Code:
		p.segment = segCode
	case object.Writable:
		p.segment = segData
	}
	l.at[s] = p
	l.order = append(l.order, p)
}

// stubFor returns the target that is a stub through the slot of name.
func (l *linker) stubFor(name string, slot uint64) target {
	return l.addStub(stub{name: name, slot: slot})
}

func (l *linker) addStub(s stub) target {
	if _, ok := l.stubAt[s.name]; !ok {
		l.stubAt[s.name] = len(l.stubs)
		l.stubs = append(l.stubs, s)
	}
	return target{stub: s.name}
}

// slotFor returns 1 + the number of the image's own slot that holds to.
func (l *linker) slotFor(to target) int {
	n, ok := l.gotAt[to]
	if !ok {
		n = len(l.got)
		l.gotAt[to] = n
		l.got = append(l.got, to)
	}
	return n + 1
}

// builder lays out the image and fills what does not depend on addresses.
type builder struct {
	*linker
	data  [segments][]byte
	base  [segments]uint64 // of each segment in the image
	stub0 uint32           // of the first stub in the code segment
	got0  uint32           // of the first slot in the constant segment
	rank  []int            // of each import among those of the image
	out   image.File
}

func (l *linker) build() (*image.File, error) {
	b := &builder{linker: l}
	for _, p := range l.order {
		align := max(p.section.Align, 1)
		if p.segment == segCode {
			align = max(align, codeAlign)
		}
		if align > image.PageSize || align&(align-1) != 0 {
			return nil, refusal.New(refusal.Sections, p.member.pair.Path+" "+p.section.Name, "it wants an alignment that the image cannot give")
		}
		if err := b.append(p.segment, align, p.section.Size); err != nil {
			return nil, err
		}
		p.off = uint32(uint64(len(b.data[p.segment])) - p.section.Size)
		copy(b.data[p.segment][p.off:], p.section.Data)
	}
	if err := b.append(segCode, codeAlign, uint64(len(l.stubs))*stubBytes); err != nil {
		return nil, err
	}
	b.stub0 = uint32(len(b.data[segCode]) - len(l.stubs)*stubBytes)
	if err := b.append(segConst, slotBytes, uint64(len(l.got))*slotBytes); err != nil {
		return nil, err
	}
	b.got0 = uint32(len(b.data[segConst]) - len(l.got)*slotBytes)
	b.setBases()
	b.sortImports()
	if err := b.fill(); err != nil {
		return nil, err
	}
	b.finishSegments()
	return &b.out, nil
}

// append adds size zero bytes to a segment, at a multiple of align.
func (b *builder) append(segment int, align, size uint64) error {
	d := b.data[segment]
	start := (uint64(len(d)) + align - 1) &^ (align - 1)
	if size > image.MaxSize || start+size > image.MaxSize {
		return refusal.New(refusal.Sections, "the patch", "the new code and data are larger than an image may be")
	}
	for uint64(len(d)) < start {
		if segment == segCode {
			d = append(d, trap)
		} else {
			d = append(d, 0)
		}
	}
	b.data[segment] = append(d, make([]byte, size)...)
	return nil
}

func pages(n int) uint64 {
	return (uint64(n) + image.PageSize - 1) &^ (image.PageSize - 1)
}

// setBases says where each segment starts; an empty one takes no place.
func (b *builder) setBases() {
	next := uint64(0)
	for i := range b.data {
		b.base[i] = next
		next += pages(len(b.data[i]))
	}
}

func (b *builder) finishSegments() {
	prots := [segments]image.Prot{image.ReadExec, image.ReadOnly, image.ReadWrite}
	for i, d := range b.data {
		if len(d) == 0 {
			continue
		}
		size := uint32(pages(len(d)))
		if i == segData {
			for len(d) > 0 && d[len(d)-1] == 0 {
				d = d[:len(d)-1]
			}
		}
		b.out.Segments = append(b.out.Segments, image.Segment{Prot: prots[i], Size: size, Data: d})
	}
	sortRelocs(b.out.Relocs)
}

// sortImports puts the imports in the order that the image wants.
func (b *builder) sortImports() {
	b.out.Imports = slices.Clone(b.names)
	slices.SortFunc(b.out.Imports, func(x, y image.Import) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Version, y.Version))
	})
	for _, n := range b.names {
		b.rank = append(b.rank, slices.Index(b.out.Imports, n))
	}
}

// addressOf returns the offset in the image of a section that travels.
func (l *linker) addressOf(s *object.Section) uint32 {
	p := l.at[s] // code comes first, so that its segment starts at 0
	return p.off
}

// address returns where t is: in the image or in the binary.
func (b *builder) address(t target) (at int64, base image.Base) {
	switch {
	case t.section != nil:
		p := b.at[t.section]
		return int64(b.base[p.segment]) + int64(p.off) + int64(t.at), image.Image
	case t.stub != "":
		return int64(b.base[segCode]) + int64(b.stub0) + int64(b.stubAt[t.stub])*stubBytes, image.Image
	}
	if t.imported > 0 {
		return int64(b.rank[t.imported-1]), image.Imported
	}
	return int64(t.at), image.Library
}

// slot returns the offset in the image of an entry of its own table.
func (b *builder) slot(n int) int64 {
	return int64(b.base[segConst]) + int64(b.got0) + int64(n-1)*slotBytes
}

// fill writes stubs, slots and the fields of all references.
func (b *builder) fill() error {
	for i, s := range b.stubs {
		off := b.stub0 + uint32(i)*stubBytes
		copy(b.data[segCode][off:], stubCode[:])
		at, base := int64(s.slot), image.Library
		if s.own > 0 {
			at, base = b.slot(s.own), image.Image
		}
		b.rel32(segCode, off+stubField, at-(stubNext-stubField), base)
	}
	for i, t := range b.got {
		if t.fixed {
			binary.LittleEndian.PutUint64(b.data[segConst][b.got0+uint32(i)*slotBytes:], t.at)
			continue
		}
		at, base := b.address(t)
		b.abs64(segConst, b.got0+uint32(i)*slotBytes, at, base)
	}
	for _, r := range b.refs {
		at, base := b.address(r.to)
		if r.slot > 0 {
			at, base = b.slot(r.slot), image.Image
		}
		off := r.from.off + uint32(r.reloc.Off)
		if r.to.fixed && r.slot == 0 {
			binary.LittleEndian.PutUint32(b.data[r.from.segment][off:], uint32(int64(r.to.at)+r.reloc.Addend))
			continue
		}
		if r.reloc.Width() == 8 {
			b.abs64(r.from.segment, off, at+r.reloc.Addend, base)
			continue
		}
		b.rel32(r.from.segment, off, at+r.reloc.Addend, base)
	}
	for _, r := range b.out.Relocs {
		if r.Addend <= -image.MaxReach || r.Addend >= image.MaxReach {
			return refusal.New(refusal.Relocation, "the patch", fmt.Sprintf("a reference to %#x is out of reach", r.Addend))
		}
	}
	return nil
}

// rel32 fills a field with the distance to at. Within the image that is known
// already; only what refers to the binary is left to the agent.
func (b *builder) rel32(segment int, off uint32, at int64, base image.Base) {
	field := b.base[segment] + uint64(off)
	if base == image.Image {
		binary.LittleEndian.PutUint32(b.data[segment][off:], uint32(int32(at-int64(field))))
		return
	}
	clear(b.data[segment][off : off+4])
	b.out.Relocs = append(b.out.Relocs, image.Reloc{Off: uint32(field), Base: base, Form: image.Rel32, Addend: at})
}

func (b *builder) abs64(segment int, off uint32, at int64, base image.Base) {
	clear(b.data[segment][off : off+8])
	b.out.Relocs = append(b.out.Relocs, image.Reloc{Off: uint32(b.base[segment]) + off, Base: base, Form: image.Abs64, Addend: at})
}
