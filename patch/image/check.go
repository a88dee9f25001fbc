package image

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// Errors of this package; returned errors wrap one of them.
var (
	ErrFormat = errors.New("not a live-patch image")              // Decode: the bytes do not follow the format
	ErrRule   = errors.New("the live-patch image breaks a rule")  // Check: well formed, but not safe to apply
	ErrPlace  = errors.New("the live-patch image does not reach") // Place: fine elsewhere, not at these addresses
)

// MaxReach bounds addresses inside a library and offsets inside the image: no
// library that can be patched spans more, and sums of them cannot wrap.
const MaxReach = 1 << 32

// Size returns the bytes that the image takes in memory. It is meaningful for a
// File that passed Check.
func (f *File) Size() uint32 {
	var total uint32
	for i := range f.Segments {
		total += f.Segments[i].Size
	}
	return total
}

// Check returns an error that wraps ErrRule unless f keeps every rule that the
// applier relies on: no value that passes can make the applier write outside
// the image or outside an old function's first bytes, or map memory that is
// both writable and executable.
func (f *File) Check() error {
	if f.Arch != "amd64" {
		return rule("the architecture is not amd64")
	}
	if !f.BuildID.Valid() {
		return rule("the build-id is not a build-id")
	}
	if err := f.checkSegments(); err != nil {
		return err
	}
	if err := f.checkImports(); err != nil {
		return err
	}
	if err := f.checkRelocs(); err != nil {
		return err
	}
	return f.checkHunks()
}

func (f *File) checkSegments() error {
	if len(f.Segments) == 0 || len(f.Segments) > MaxSegments {
		return rule("it has no segment or too many")
	}
	var total uint64
	for i, s := range f.Segments {
		if s.Prot != ReadOnly && s.Prot != ReadExec && s.Prot != ReadWrite {
			return rule(nth("segment", i) + " has an unknown protection")
		}
		if s.Size == 0 || s.Size%PageSize != 0 {
			return rule(nth("segment", i) + " is not a positive number of pages")
		}
		if uint64(len(s.Data)) > uint64(s.Size) {
			return rule(nth("segment", i) + " has more data than memory")
		}
		total += uint64(s.Size)
		if total > MaxSize {
			return rule("its segments together are too large")
		}
	}
	return nil
}

// checkImports wants rising order, so that one File has one encoding.
func (f *File) checkImports() error {
	if len(f.Imports) > MaxImports {
		return rule("it has too many imports")
	}
	for i, m := range f.Imports {
		wrong := ""
		switch {
		case !validName(m.Name) || m.Version != "" && !validName(m.Version):
			wrong = " has no valid name or version"
		case m.Kind != Function && m.Kind != Data:
			wrong = " has an unknown kind"
		case i > 0 && !f.Imports[i-1].before(&f.Imports[i]):
			wrong = " is out of order or there twice"
		default:
			continue
		}
		return rule(nth("import", i) + wrong)
	}
	return nil
}

// before reports whether m stands before o in an image.
func (m *Import) before(o *Import) bool {
	if m.Name != o.Name {
		return m.Name < o.Name
	}
	return m.Version < o.Version
}

// checkRelocs walks relocations and segments side by side; both are in order.
func (f *File) checkRelocs() error {
	if len(f.Relocs) > MaxRelocs {
		return rule("it has too many relocations")
	}
	seg, start := 0, uint64(0) // current segment and its offset
	free := uint64(0)          // first byte behind the fields seen so far
	used := make([]bool, len(f.Imports))
	for i, r := range f.Relocs {
		width := r.Form.width()
		if width == 0 || (r.Base != Image && r.Base != Library && r.Base != Imported) {
			return rule(nth("relocation", i) + " has an unknown form or base")
		}
		if r.Addend <= -MaxReach || r.Addend >= MaxReach {
			return rule(nth("relocation", i) + " points out of reach")
		}
		off := uint64(r.Off)
		if off < free {
			return rule(nth("relocation", i) + " is out of order or overlaps another")
		}
		free = off + width
		for seg < len(f.Segments) && off >= start+uint64(f.Segments[seg].Size) {
			start += uint64(f.Segments[seg].Size)
			seg++
		}
		if seg == len(f.Segments) || free > start+uint64(f.Segments[seg].Size) {
			return rule(nth("relocation", i) + " does not lie inside one segment")
		}
		if r.Base != Imported {
			continue
		}
		// Nothing but the agent may write where a foreign address stands.
		if r.Form != Abs64 || f.Segments[seg].Prot != ReadOnly {
			return rule(nth("relocation", i) + " puts an import elsewhere than in a read-only slot")
		}
		if r.Addend < 0 || r.Addend >= int64(len(f.Imports)) {
			return rule(nth("relocation", i) + " names an import that does not exist")
		}
		used[r.Addend] = true
	}
	for i, u := range used {
		if !u {
			return rule(nth("import", i) + " is not used")
		}
	}
	return nil
}

func (f *File) checkHunks() error {
	if len(f.Hunks) == 0 || len(f.Hunks) > MaxHunks {
		return rule("it redirects no function or too many")
	}
	free := uint64(0) // first address behind the functions seen so far
	for i := range f.Hunks {
		h := &f.Hunks[i]
		switch {
		case !validName(h.Name):
			return rule(nth("function", i) + " has no valid name")
		case h.Off >= MaxReach || h.Size > MaxSize:
			return rule("function " + h.Name + " is out of reach or too large")
		case h.Off < free:
			return rule("function " + h.Name + " is out of order or overlaps another")
		case h.Size < h.JumpOff()+JumpSize:
			return rule("function " + h.Name + " is too small for a jump")
		case !h.padded():
			return rule("function " + h.Name + " carries bytes from behind its end")
		case !f.isCode(h.New):
			return rule("the new code of function " + h.Name + " does not lie in an executable segment")
		}
		free = h.Off + uint64(h.Size)
	}
	return nil
}

// padded reports whether the entry bytes behind the function's end are zero.
func (h *Hunk) padded() bool {
	for i := int(h.Size); i < EntrySize; i++ {
		if h.Entry[i] != 0 {
			return false
		}
	}
	return true
}

// isCode reports whether off is a byte that an executable segment carries.
func (f *File) isCode(off uint32) bool {
	start := uint64(0)
	for _, s := range f.Segments {
		if at := uint64(off); at >= start && at < start+uint64(len(s.Data)) {
			return s.Prot == ReadExec
		}
		start += uint64(s.Size)
	}
	return false
}

// validName accepts what compilers make: text without blanks and controls.
func validName(s string) bool {
	if s == "" || len(s) > MaxNameBytes || !utf8.ValidString(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func nth(what string, i int) string { return what + " " + strconv.Itoa(i) }

func rule(what string) error { return &Error{Kind: ErrRule, Reason: what} }

// Error says what is wrong with an image.
type Error struct {
	Kind   error // ErrFormat, ErrRule or ErrPlace
	Reason string
}

func (e *Error) Error() string { return e.Kind.Error() + ": " + e.Reason }

// Unwrap returns the kind of the error.
func (e *Error) Unwrap() error { return e.Kind }
