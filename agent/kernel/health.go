package kernel

import (
	"strconv"
	"strings"
)

// LogLine returns the text of one record of /dev/kmsg. ok is false for what a
// program has written there and for what is no record.
//
//	4,1234,5678,-;BUG: unable to handle page fault for address: 0000000000000000
func LogLine(record string) (text string, ok bool) {
	head, text, found := strings.Cut(record, ";")
	number, _, _ := strings.Cut(head, ",")
	priority, err := strconv.ParseUint(number, 10, 32)
	if !found || err != nil || priority>>3 != 0 {
		return "", false // facility 0 is the kernel itself
	}
	text, _, _ = strings.Cut(text, "\n")
	return text, true
}

// symptoms are how lines of the kernel's log begin that tell of a sick kernel.
// The kernel puts the name that a process gave itself, up to 15 bytes, at the
// start of other lines; so what counts is longer, or looked at more closely
// below. Else any user could have a patch taken off.
var symptoms = []struct{ start, what string }{
	{"BUG: unable to handle ", failed},
	{"BUG: kernel NULL pointer ", failed},
	{"BUG: stack guard page ", failed},
	{"general protection fault", failed},
	{"Oops: general protection fault", failed},
	{"BUG: sleeping function called ", "the kernel found an error in itself"},
	{"BUG: scheduling while atomic", "the kernel found an error in itself"},
	{"BUG: Bad page state ", damaged},
	{"BUG: Bad page map ", damaged},
	{"BUG: Bad rss-counter ", damaged},
	{"BUG: workqueue lockup", hangs},
	{"watchdog: BUG: soft lockup", hangs},
	{"watchdog: Watchdog detected hard LOCKUP", hangs},
	{"NMI watchdog: Watchdog detected hard LOCKUP", hangs},
	{"list_add corruption", damaged},
	{"list_del corruption", damaged},
}

// What symptoms mean, for people.
const (
	failed  = "the kernel failed (oops)"
	warned  = "the kernel warned of an error in itself"
	damaged = "the kernel's memory is damaged"
	hangs   = "a processor hangs in the kernel"
)

// Symptom returns what a line of the kernel's own log tells of a sick kernel, ""
// when it tells of none. During the probation of a patch any of them speaks
// against it: the kernel cannot say what it would have done without. A task that
// hangs is no symptom, since a user can have a file system that never answers.
func Symptom(line string) string {
	what := ""
	for _, s := range symptoms {
		if strings.HasPrefix(line, s.start) {
			what = s.what
		}
	}
	switch {
	case what != "":
	case strings.HasPrefix(line, "kernel BUG at ") && strings.HasSuffix(line, "!"):
		what = "the kernel found an error in itself"
	case isOops(line):
		what = failed
	case isWarning(line):
		what = warned
	case strings.HasPrefix(line, "rcu: INFO: rcu_preempt ") || strings.HasPrefix(line, "rcu: INFO: rcu_sched "):
		if !strings.Contains(line, " stall") {
			return ""
		}
		what = hangs
	default:
		return ""
	}
	return what + ": " + line
}

// isOops recognises how the kernel begins to tell of a failure:
//
//	Oops: 0002 [#1] PREEMPT SMP PTI
//	Oops: divide error: 0000 [#1] SMP
func isOops(line string) bool {
	if rest, twice := strings.CutPrefix(line, "Oops: "); twice && !strings.HasPrefix(rest, "0") {
		line = rest
	}
	for _, kind := range []string{"Oops: ", "divide error: ", "invalid opcode: ", "stack segment: ", "int3: "} {
		rest, ok := strings.CutPrefix(line, kind)
		if !ok || len(rest) < 4 {
			continue
		}
		if rest, ok = strings.CutPrefix(rest[4:], " [#"); !ok {
			continue
		}
		if rest, ok = strings.CutPrefix(strings.TrimLeft(rest, digits), "] "); ok && (strings.HasPrefix(rest, "PREEMPT") || strings.HasPrefix(rest, "SMP")) {
			return true
		}
	}
	return false
}

// isWarning recognises
//
//	WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2
func isWarning(line string) bool {
	rest, ok := strings.CutPrefix(line, "WARNING: CPU: ")
	return ok && strings.HasPrefix(strings.TrimLeft(rest, digits), " PID: ")
}

const digits = "0123456789"

// Tainted returns what a change of the kernel's taint tells of a sick kernel, ""
// when it tells of none. What modules bring with them, and what hardware does,
// speaks against no patch.
func Tainted(before, after uint64) string {
	for _, t := range []struct {
		bit  uint64
		what string
	}{
		{TaintOops, failed}, {TaintBadPage, damaged}, {TaintSoftLockup, hangs}, {TaintWarning, warned},
	} {
		if after&^before&t.bit != 0 {
			return t.what + ": its taint went from " + strconv.FormatUint(before, 10) + " to " + strconv.FormatUint(after, 10)
		}
	}
	return ""
}
