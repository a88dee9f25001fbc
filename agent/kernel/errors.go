package kernel

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// What the agent itself refuses before the kernel is asked. Nothing was changed.
var (
	ErrModule       = errors.New("the file is not a live-patch module that can be read; nothing was loaded: build or pack it again")
	ErrDisabled     = errors.New("the kernel was started with livemend=off, so no live patch is loaded: start it without that word to allow them again")
	ErrUnsupported  = errors.New("the running kernel cannot be live-patched; nothing was loaded: update it and restart instead")
	ErrOtherKernel  = errors.New("the live patch was built for another kernel; nothing was loaded: use the patch for the one that is running")
	ErrNoChecksums  = errors.New("the live patch lacks the checksums by which the kernel compares what it calls; nothing was loaded: build it again with them")
	ErrLockdown     = errors.New("the kernel is locked down and loads signed modules only, and this live patch is not signed; nothing was loaded: have it signed with a key that the kernel trusts, or update the kernel and restart")
	ErrSignature    = errors.New("the kernel accepts modules only with a signature of a key that it trusts; the live patch was not loaded: have it signed with such a key, or update the kernel and restart")
	ErrModulesOff   = errors.New("loading modules was switched off until the next restart (kernel.modules_disabled); nothing was loaded: update the kernel and restart instead")
	ErrNameTaken    = errors.New("another module of the same name is loaded; it was left alone and nothing was loaded: find out whose it is, then unload it")
	ErrDependency   = errors.New("a module that the live patch needs is not loaded; nothing was loaded: load that module first, if it is used here at all")
	ErrRebootNeeded = errors.New("a module stopped in the middle of being loaded and its memory cannot be given back; nothing more is loaded: restart this server")
)

// What the kernel refuses. It undid whatever it had begun.
var (
	ErrBusy        = errors.New("another live patch is still being switched on or off; nothing was loaded: it is tried again")
	ErrSymbol      = errors.New("a function that the live patch replaces is not in this kernel; nothing was loaded: report it to whoever built the patch")
	ErrUnresolved  = errors.New("the live patch uses something that this kernel does not offer; nothing was loaded: report it to whoever built the patch")
	ErrMalformed   = errors.New("the kernel cannot read the live patch; nothing was loaded: fetch or build it again")
	ErrChecksums   = errors.New("the live patch was built against interfaces that differ from this kernel's; nothing was loaded: use the patch for the kernel that is running")
	ErrMagic       = errors.New("the live patch was built with settings that differ from this kernel's; nothing was loaded: use the patch for the kernel that is running")
	ErrLayout      = errors.New("the live patch was built for a kernel of another generation; nothing was loaded: use the patch for the kernel that is running")
	ErrMemory      = errors.New("the kernel has no memory for the live patch; nothing was loaded: free some and try again")
	ErrRefused     = errors.New("the kernel did not load the live patch; nothing was changed: see what it said")
	ErrInUse       = errors.New("the kernel still uses the module; it stays loaded, which does no harm: it is removed later")
	ErrPermission  = errors.New("the kernel does not let the agent load modules; nothing was changed: run it as root with CAP_SYS_MODULE")
	ErrUnreachable = errors.New("the kernel's files of live patches cannot be read; nothing was changed: check that /sys and /proc are mounted")
)

// What went wrong after the kernel had begun.
var (
	ErrOops    = errors.New("the kernel failed inside the live patch while it was loaded; it does not protect anything, and cannot be unloaded: restart this server soon, the patch is not loaded again")
	ErrHung    = errors.New("loading the live patch did not end in time; whether it still will is unknown: restart this server soon, the patch is not loaded again")
	ErrStalled = errors.New("some tasks never left the functions that the live patch replaces; it was taken back, nothing was changed: restart the named programs and try again")
	ErrKept    = errors.New("some tasks still run in the live patch's functions, so it stays in force; nothing was changed: restart the named programs and try again")
	ErrStuck   = errors.New("the switch of the live patch could be neither finished nor taken back; old and new functions are both in use, which the patch has to allow: restart the named programs, or this server")
	ErrForced  = errors.New("the switch of a live patch was forced since this server started, so nothing is unloaded any more: restart it to take patches off")
)

// Error is a failure of one patch: its kind, which is one of the errors above,
// and what is known beside it.
type Error struct {
	Kind   error
	Number unix.Errno // that the kernel gave, 0 for none
	Detail string     // for people: what differs, or the kernel's own words
	Tasks  []Task     // that hold the switch up
}

func (e *Error) Error() string {
	text := e.Kind.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	for _, t := range e.Tasks {
		text += "; " + t.String()
	}
	return text
}

// Unwrap returns the kind, and the kernel's number if there is one.
func (e *Error) Unwrap() []error {
	if e.Number != 0 {
		return []error{e.Kind, e.Number}
	}
	return []error{e.Kind}
}

// refusal says what a number means that finit_module gave, with the kernel's
// words about it. It is a table of what was seen on 6.1 and 6.12.
func refusal(number unix.Errno, words string) error {
	e := &Error{Kind: ErrRefused, Number: number, Detail: words}
	says := func(text string) bool { return strings.Contains(words, text) }
	switch number {
	case unix.EEXIST:
		e.Kind = ErrNameTaken
	case unix.EBUSY:
		e.Kind = ErrBusy
	case unix.EINVAL:
		switch {
		case says("not found in symbol table"), says("unresolvable ambiguity"):
			e.Kind = ErrSymbol
		case says("disagrees about version of symbol"), says("no symbol version for"):
			e.Kind = ErrChecksums
		}
	case unix.ENOENT:
		e.Kind = ErrUnresolved
	case unix.ENOEXEC:
		switch {
		case says("disagrees about version of symbol"), says("no symbol version for"):
			e.Kind = ErrChecksums
		case says("version magic"):
			e.Kind = ErrMagic
		case says("section size must match"):
			e.Kind = ErrLayout
		default:
			e.Kind = ErrMalformed
		}
	case unix.EPERM:
		e.Kind = ErrPermission
		if says("Lockdown") {
			e.Kind = ErrLockdown
		}
	case unix.EKEYREJECTED, unix.ENOKEY, unix.EBADMSG:
		e.Kind = ErrSignature
	case unix.ENOMEM:
		e.Kind = ErrMemory
	}
	if e.Detail == "" {
		e.Detail = number.Error()
	}
	return e
}
