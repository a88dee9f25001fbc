// Package patch says what a live patch is: the target it fits, the fixes it
// carries, its level among the patches for the same target, and where it came
// from. A patch is an artifact (see the package image below this one) plus the
// Metadata here, which travels as the custom part of the artifact's entry in
// the portal's signed targets metadata.
//
// It is pure, is linked into the agent, and must not import fmt, read files or
// know how patches are signed, stored or applied.
package patch

import (
	"errors"
	"strconv"
)

// Limits on metadata. A reader refuses what is over them.
const (
	MaxName      = 200     // bytes of a name or identifier
	MaxText      = 4096    // bytes of a description
	MaxFixes     = 1000    // fixes in one patch
	MaxFunctions = 4096    // functions in one patch
	MaxInputs    = 1000    // inputs in a provenance
	MaxLevel     = 1 << 31 // highest level
)

// Errors of this package; returned errors wrap one of them.
var (
	ErrMetadata = errors.New("patch metadata is not valid")
	ErrNotPatch = errors.New("this target is not a live patch")
)

// Kind says which engine applies a patch.
type Kind string

// The two engines.
const (
	Kernel Kind = "kernel"
	User   Kind = "user"
)

// BuildID is a GNU build-id in lower-case hexadecimal. It identifies one exact
// binary: the linker computes it over the content.
type BuildID string

// Valid reports whether b is 8 to 64 bytes in lower-case hexadecimal.
func (b BuildID) Valid() bool {
	if len(b) < 16 || len(b) > 128 || len(b)%2 != 0 {
		return false
	}
	for i := 0; i < len(b); i++ {
		if c := b[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// CVE names a vulnerability: a CVE identifier, or the identifier of another
// authority. Comparison is exact.
type CVE string

// Target identifies the one binary that a patch fits.
type Target struct {
	BuildID BuildID // of vmlinux, or of the library or program
	Arch    string  // as Go names it: amd64, arm64
	Release string  // kernel release (uname -r); kernel patches only
	Library string  // file name for people (liblzma.so.5.4.1); user patches only, never used to match
}

// Fix is one vulnerability that a patch closes.
type Fix struct {
	CVE          CVE
	Severity     string // low, medium, high, critical, or empty when not rated
	Component    string // package that scanners name: linux, liblzma5
	Distribution string // debian-12
	FixedVersion string // version of Component that fixes it on disk; empty when there is none
}

// Function is one function that a patch replaces.
type Function struct {
	Name string
	Size int64 // bytes of the new code
}

// Input is one input of a build.
type Input struct {
	Name   string
	SHA256 string // lower-case hexadecimal
}

// Provenance says how a patch was built, so that somebody else can build it again.
type Provenance struct {
	Builder  string // program and version that made the artifact
	Compiler string // DW_AT_producer or version text
	Inputs   []Input
	Waivers  []string // what a person took on themselves, with their name
}

// Metadata describes one patch. Level counts up per target; a level holds all
// the fixes of the levels below it.
type Metadata struct {
	ID          string // unique: U20261123-1a2b3c4d-1
	Kind        Kind
	Target      Target
	Level       int64
	Fixes       []Fix
	Supersedes  []string // IDs
	Requires    []string // IDs
	Description string
	Functions   []Function
	Provenance  Provenance
}

// Path is the name of the patch's artifact in the portal's repository. It
// depends on kind, target and level only, so two patches cannot claim the same
// level of the same target.
func (m *Metadata) Path() string {
	return string(m.Kind) + "/" + string(m.Target.BuildID) + "/level-" + strconv.FormatInt(m.Level, 10) + ".lmp"
}

// Covers reports whether the patch fixes the vulnerability.
func (m *Metadata) Covers(id CVE) bool {
	for _, f := range m.Fixes {
		if f.CVE == id {
			return true
		}
	}
	return false
}

// Check returns an error that wraps ErrMetadata when a required field is
// missing or a limit is passed.
func (m *Metadata) Check() error {
	bad := func(what string) error { return &MetadataError{ID: m.ID, Reason: what} }
	switch {
	case m.ID == "" || len(m.ID) > MaxName:
		return bad("the id is missing or too long")
	case m.Kind != Kernel && m.Kind != User:
		return bad("the kind is neither kernel nor user")
	case !m.Target.BuildID.Valid():
		return bad("the target's build-id is not a build-id")
	case m.Target.Arch == "":
		return bad("the target's architecture is missing")
	case m.Kind == Kernel && m.Target.Release == "":
		return bad("the target's kernel release is missing")
	case m.Level < 1 || m.Level > MaxLevel:
		return bad("the level is not between 1 and the highest level")
	case len(m.Fixes) == 0:
		return bad("it fixes nothing")
	}
	for _, f := range m.Fixes {
		if f.CVE == "" {
			return bad("a fix has no identifier")
		}
	}
	return nil
}

// MetadataError says what is wrong with which patch.
type MetadataError struct {
	ID     string
	Reason string
}

func (e *MetadataError) Error() string {
	return "patch " + strconv.Quote(e.ID) + ": " + e.Reason
}

// Unwrap returns ErrMetadata.
func (e *MetadataError) Unwrap() error { return ErrMetadata }
