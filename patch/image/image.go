// Package image is the artifact of a user-space live patch: new code and data
// for one exact library, the few relocations that place them, and the hunks
// that say which old functions jump into them.
//
// The author's linker resolves everything against the stock binary, so what is
// left for the agent is arithmetic, and looking up the few names that the stock
// binary does not import itself. The format is Livemend's own and is read by
// a root process: the reader trusts nothing, and Check holds every rule that
// the applier relies on. Pure; no fmt; must not know about processes.
package image

import "livemend.dev/livemend/patch"

// Limits of the format; Decode refuses more.
const (
	PageSize     = 4096
	MaxSegments  = 8
	MaxSize      = 16 << 20 // bytes of all segments in memory
	MaxRelocs    = 1 << 18
	MaxHunks     = patch.MaxFunctions
	MaxNameBytes = 512
	MaxImports   = 1024
	JumpSize     = 5  // e9 rel32
	EntrySize    = 16 // bytes of the old function that a hunk carries
)

// Prot is the protection of a segment once the patch is applied. No value is
// both writable and executable.
type Prot uint8

// The three protections.
const (
	ReadOnly  Prot = 1 // r--
	ReadExec  Prot = 2 // r-x
	ReadWrite Prot = 3 // rw-
)

// Segment is one piece of the image. Segments follow each other in memory in
// their order, without gaps, each starting on a page.
type Segment struct {
	Prot Prot
	Size uint32 // bytes in memory, a multiple of PageSize
	Data []byte // the first bytes; the rest is zero
}

// Base says what a relocation's value is relative to.
type Base uint8

// The three bases.
const (
	Image    Base = 1 // address of the first segment
	Library  Base = 2 // load bias of the library (address of its vaddr 0)
	Imported Base = 3 // address of the import whose number is the Addend; only as Abs64 in a ReadOnly segment
)

// ImportKind says what an imported name must turn out to be.
type ImportKind uint8

// The two kinds of import.
const (
	Function ImportKind = 1
	Data     ImportKind = 2
)

// Import is a name that the process must define outside the image, in an object
// that the library or the program is linked with.
type Import struct {
	Name    string
	Version string // of the symbol; empty for one without
	Kind    ImportKind
}

// Form says how a relocation's value is stored.
type Form uint8

// The two forms. P is the address of the field itself.
const (
	Rel32 Form = 1 // int32(base + Addend - P), little-endian; must fit
	Abs64 Form = 2 // uint64(base + Addend), little-endian
)

// Reloc fills one field of the image when the addresses are known.
type Reloc struct {
	Off    uint32 // of the field, from the start of the image
	Base   Base
	Form   Form
	Addend int64 // the symbol's offset from Base and the instruction's own addend, added up
}

// Hunk redirects one function.
type Hunk struct {
	Name    string
	Off     uint64          // virtual address of the old function in the library's file
	Size    uint32          // bytes of the old function, at least JumpSize past an endbr64
	OldHash [32]byte        // SHA-256 of the old function's Size bytes
	Entry   [EntrySize]byte // the old function's first bytes, zero-padded when Size is smaller
	New     uint32          // offset of the new function in the image, inside a ReadExec segment
}

// File is a whole artifact.
type File struct {
	BuildID  patch.BuildID // of the library the image was linked against
	Arch     string        // amd64
	Imports  []Import      // by rising Name and then Version, each once and used
	Segments []Segment
	Relocs   []Reloc // by rising Off, never overlapping
	Hunks    []Hunk  // by rising Off, never overlapping
}
