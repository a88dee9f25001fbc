package objdiff

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/object"
)

// maxNamed bounds the names that one notice lists.
const maxNamed = 5

// onlyLines reports whether f differs from o, its old form, in nothing but the
// numbers of its own source lines, as __LINE__ and assert put them into code. A
// fix that only changes a limit has the same shape, so the numbers themselves
// must be explained: each is, in both builds, the very line that debug
// information gives for the instruction that loads it. Whatever cannot be
// explained so is a change.
func onlyLines(before, after *side, o, f *object.Function) bool {
	if !o.Alone || !f.Alone || o.Section.Size != f.Section.Size {
		return false
	}
	was, refersWas := before.masked(o.Section, 0, o.Section.Size)
	is, refersIs := after.masked(f.Section, 0, f.Section.Size)
	if refersWas != refersIs {
		return false
	}
	oldCode, err := o.Section.Instructions()
	if err != nil {
		return false
	}
	newCode, err := f.Section.Instructions()
	if err != nil || len(oldCode) != len(newCode) {
		return false
	}
	rows, ok := pairRows(before.obj, after.obj, o.Section, f.Section)
	if !ok {
		return false
	}
	for i, a := range oldCode {
		if b := newCode[i]; a.Off != b.Off || a.Len != b.Len {
			return false
		}
		x, y := was[a.Off:a.End()], is[a.Off:a.End()]
		if bytes.Equal(x, y) {
			continue
		}
		at := number(x)
		if at == 0 || !bytes.Equal(x[:at], y[:at]) {
			return false
		}
		if !rows.explain(a.Off, binary.LittleEndian.Uint32(x[at:]), binary.LittleEndian.Uint32(y[at:])) {
			return false
		}
	}
	return true
}

// pinnedSame reports whether the function called name is the same in both
// builds when every source line has the same number. The unchanged machine code
// then has the old numbers and does what the new code would.
func (p *Pair) pinnedSame(name string) bool {
	q := p.pinned
	if q == nil || q.IsChanged(name) {
		return false
	}
	has := func(o *object.Object) bool {
		return slices.ContainsFunc(o.Functions, func(f *object.Function) bool { return f.Name == name && f.Alone })
	}
	return has(q.Before) && has(q.After)
}

// number returns where in an instruction the 4 bytes of a number stand that it
// loads or stores as it is, or 0: a line number is an argument or a stored
// value, and never compared or counted with.
func number(in []byte) int {
	op := in
	wide := false
	if op[0]&0xf0 == 0x40 {
		wide, op = op[0]&8 != 0, op[1:]
	}
	at := len(in) - 4
	switch {
	case len(op) == 5 && op[0]&0xf8 == 0xb8 && !wide, // mov to a register
		len(op) == 5 && op[0] == 0x68,                    // push
		len(op) >= 6 && op[0] == 0xc7 && op[1]>>3&7 == 0: // mov to memory
		return at
	}
	return 0
}

// rowPair is one row of the debug information of a function in both builds.
type rowPair struct {
	off      int
	was, now int // lines
}

type rowPairs []rowPair

// pairRows returns where the code of both sections comes from. ok is false when
// that is not known or not alike.
func pairRows(before, after *object.Object, o, f *object.Section) (rows rowPairs, ok bool) {
	was, err := before.Debug()
	if err != nil {
		return nil, false
	}
	is, err := after.Debug()
	if err != nil {
		return nil, false
	}
	old, now := was.Lines(o), is.Lines(f)
	if len(old) != len(now) {
		return nil, false
	}
	for i := range old {
		if old[i].Off != now[i].Off || old[i].File != now[i].File {
			return nil, false
		}
		rows = append(rows, rowPair{off: int(old[i].Off), was: old[i].Line, now: now[i].Line})
	}
	return rows, true
}

// explain reports whether the instruction at off comes from line was in the old
// build and from line now in the new one.
func (r rowPairs) explain(off int, was, now uint32) bool {
	at := -1
	for _, row := range r {
		if row.off <= off {
			at = row.off
		}
	}
	return slices.ContainsFunc(r, func(row rowPair) bool {
		return row.off == at && int64(row.was) == int64(was) && int64(row.now) == int64(now)
	})
}

// noteLines tells of functions that were found to differ in line numbers alone.
func (p *Pair) noteLines(names []string) {
	if len(names) == 0 {
		return
	}
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if len(names) > maxNamed {
		text += fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	p.Notices = append(p.Notices, p.Path+": left alone, as only the numbers of source lines differ: "+text)
}
