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
var symptoms = []struct{ start, what string }{
	{"BUG: ", "the kernel found an error in itself"},
	{"Oops", "the kernel failed (oops)"},
	{"kernel BUG at ", "the kernel found an error in itself"},
	{"general protection fault", "the kernel failed (oops)"},
	{"stack segment", "the kernel failed (oops)"},
	{"divide error", "the kernel failed (oops)"},
	{"invalid opcode", "the kernel failed (oops)"},
	{"Unable to handle kernel", "the kernel failed (oops)"},
	{"WARNING: CPU:", "the kernel warned of an error in itself"},
	{"WARNING: possible", "the kernel warned of a deadlock"},
	{"watchdog: BUG: soft lockup", "a processor hangs in the kernel"},
	{"watchdog: Watchdog detected hard LOCKUP", "a processor hangs in the kernel"},
	{"NMI watchdog: Watchdog detected hard LOCKUP", "a processor hangs in the kernel"},
	{"list_add corruption", "the kernel's memory is damaged"},
	{"list_del corruption", "the kernel's memory is damaged"},
	{"Internal error: Oops", "the kernel failed (oops)"},
}

// Symptom returns what a line of the kernel's own log tells of a sick kernel, ""
// when it tells of none. During the probation of a patch any of them speaks
// against it: the kernel cannot say what it would have done without.
func Symptom(line string) string {
	for _, s := range symptoms {
		if strings.HasPrefix(line, s.start) {
			return s.what + ": " + line
		}
	}
	switch {
	case strings.HasPrefix(line, "rcu: INFO: ") && strings.Contains(line, "stall"):
		return "a processor does not get out of the kernel: " + line
	case strings.HasPrefix(line, "INFO: task ") && strings.Contains(line, " blocked for more than "):
		return "a task hangs in the kernel: " + line
	}
	return ""
}

// Tainted returns what a change of the kernel's taint tells of a sick kernel, ""
// when it tells of none. What modules bring with them, and what hardware does,
// speaks against no patch.
func Tainted(before, after uint64) string {
	for _, t := range []struct {
		bit  uint64
		what string
	}{
		{TaintOops, "the kernel failed (oops)"}, {TaintBadPage, "the kernel's memory is damaged"},
		{TaintSoftLockup, "a processor hung in the kernel"}, {TaintWarning, "the kernel warned of an error in itself"},
	} {
		if after&^before&t.bit != 0 {
			return t.what + ": its taint went from " + strconv.FormatUint(before, 10) + " to " + strconv.FormatUint(after, 10)
		}
	}
	return ""
}
