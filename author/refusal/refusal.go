// Package refusal holds the reasons for which a live patch is not built. A
// refusal is an answer, not a failure: the change cannot be made in running
// memory without a risk that the author tools cannot rule out, and it says
// where and why. The package is pure and knows nothing about object files.
package refusal

import "errors"

// Kind is the class of a refusal; tests and reports compare it.
type Kind string

// The kinds of refusal.
const (
	Foreign     Kind = "foreign-build"     // the rebuilt code differs from the stock binary
	Data        Kind = "data"              // a variable's initialiser, size or layout changed
	Constant    Kind = "constant"          // a constant changed that live objects may hold or others may read
	Initialiser Kind = "initialiser"       // code or tables that run only when the library is loaded
	ThreadLocal Kind = "thread-local"      // a thread-local variable is new, changed or out of reach
	IFunc       Kind = "ifunc"             // an indirect function changed
	Small       Kind = "small-function"    // no room for a jump
	Branch      Kind = "branch-into-entry" // code jumps into the bytes that the jump replaces
	Undecodable Kind = "undecodable"       // machine code that the tools cannot read
	Import      Kind = "import"            // a symbol that the stock binary does not import
	Symbol      Kind = "symbol"            // a symbol that cannot be found or told apart
	Exceptions  Kind = "exceptions"        // code that exceptions may pass through
	Language    Kind = "language"          // a program of a language that cannot be patched
	LTO         Kind = "lto"               // link-time optimised objects
	Sections    Kind = "sections"          // not built with one section per function
	Relocation  Kind = "relocation"        // a relocation that the linker does not offer
	Layout      Kind = "layout"            // a type has another form in memory, or that cannot be told
	Ownership   Kind = "ownership"         // who frees an object may have changed
	Nothing     Kind = "nothing"           // nothing of the binary changed
)

// Error is one refusal.
type Error struct {
	Kind   Kind
	Place  string // object and symbol
	Reason string // what is in the way and what would help
}

// New returns a refusal.
func New(kind Kind, place, reason string) *Error {
	return &Error{Kind: kind, Place: place, Reason: reason}
}

func (e *Error) Error() string {
	return "refused (" + string(e.Kind) + ") " + e.Place + ": " + e.Reason
}

// Is reports whether err holds a refusal of the given kind.
func Is(err error, kind Kind) bool {
	for _, e := range All(err) {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

// All returns the refusals that err holds, joined or wrapped, in their order.
func All(err error) []*Error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, All(e)...)
		}
		return all
	}
	if e, ok := err.(*Error); ok {
		return []*Error{e}
	}
	return All(errors.Unwrap(err))
}
