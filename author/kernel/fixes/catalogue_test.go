package fixes_test

import (
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/internal/guest"
)

// fix is one fix and what must come of it.
type fix struct {
	name   string
	kernel guest.Kernel

	diff  string              // of ours, in folder diffs; or
	later string              // a later version of the source package, and
	take  map[string][]string // what the fix is in it: see backport

	functions []string     // that the patch must replace
	refused   refusal.Kind // the reason for which it must not be built, or empty
	probe     string       // asks the guest; empty when nothing can be seen from outside
	root      bool         // the probe needs privileges
	reach     string       // instead: the new code of this function is seen to run
	trigger   string       // by this
	sysctl    string       // FILE=VALUE below /proc/sys, set before
	disk      bool         // the guest has a file system on a disk
	note      string       // for the page

	quick bool // built and loaded in every run of the tests
}

// debian612 is an older kernel of the later series, with holes that were closed
// since.
var debian612 = guest.Kernel{Release: "6.12.107+deb12-amd64", Image: guest.Package{
	Name: "linux-image-6.12.107+deb12-amd64", Version: "6.12.107-1~deb12u1", SHA256: "32198d4443a47b7dec4d056631f9cd5585572124ce129408e09071d1cea9b67f",
}}

var catalogue = []fix{
	{name: "CVE-2026-46333", kernel: guest.Debian61, diff: "CVE-2026-46333.diff", functions: []string{"__ptrace_may_access"}, probe: "ptrace-zombie", quick: true,
		note: "our own form of the fix: a process without memory may be looked into only with CAP_SYS_PTRACE"},
	{name: "CVE-2026-46333 (upstream's form)", kernel: guest.Debian61, later: "6.1.176-1",
		take:    map[string][]string{"kernel/ptrace.c": {"task_still_dumpable", "__ptrace_may_access"}, "kernel/exit.c": {"exit_mm"}, "include/linux/sched.h": {"struct task_struct {"}},
		refused: refusal.Layout, note: "a new bit in struct task_struct"},
	{name: "CVE-2026-53236", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"net/core/sock.c": {"sk_setsockopt"}}, functions: []string{"sk_setsockopt"}, probe: "tcp-filter"},
	{name: "CVE-2026-53249", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"net/ipv4/ip_options.c": {"ip_options_get"}}, functions: []string{"ip_options_get"}, probe: "source-route"},
	{name: "CVE-2026-52928", kernel: guest.Debian61, later: "6.1.192-2", take: map[string][]string{"net/unix/af_unix.c": {"unix_ioctl"}}, functions: []string{"unix_ioctl"}, probe: "unix-mark"},
	{name: "CVE-2026-52923", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"ipc/util.c": {"ipc_idr_alloc"}}, functions: []string{"ipc_addid"}, probe: "message-next-id", root: true,
		note: "the fix is in an inlined function; its caller travels"},
	{name: "CVE-2026-43074", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"fs/eventpoll.c": {"struct eventpoll {", "ep_free"}}, refused: refusal.Layout, note: "a new member of struct eventpoll"},
	{name: "CVE-2026-98655", kernel: guest.Debian61, later: "6.1.192-2", take: map[string][]string{"kernel/events/core.c": {"SYSCALL_DEFINE5"}}, functions: []string{"__ia32_sys_perf_event_open", "__x64_sys_perf_event_open"}, probe: "text-poke", sysctl: "kernel/perf_event_paranoid=2",
		note: "the body of a system call is not traced; its entries travel with it"},
	{name: "CVE-2026-98655 (6.12)", kernel: debian612, diff: "CVE-2026-98655-6.12.diff", functions: []string{"__ia32_sys_perf_event_open", "__x64_sys_perf_event_open"}, probe: "text-poke", sysctl: "kernel/perf_event_paranoid=2",
		note: "the later version changes more in that function; a kernel with marks for indirect calls (IBT)"},
	{name: "CVE-2026-53352", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"kernel/signal.c": {"zap_other_threads"}}, functions: []string{"zap_other_threads"}, reach: "zap_other_threads", trigger: "exec"},
	{name: "CVE-2026-31449", kernel: guest.Debian61, later: "6.1.176-1", take: map[string][]string{"fs/ext4/extents.c": {"ext4_ext_correct_indexes"}}, functions: []string{"ext4_ext_correct_indexes [ext4]"}, reach: "ext4_ext_correct_indexes", trigger: "extents", disk: true,
		note: "in module ext4"},
	{name: "CVE-2026-45985", kernel: guest.Debian61, later: "6.1.192-2", take: map[string][]string{"fs/ext4/extents.c": {"ext4_split_convert_extents", "ext4_ext_handle_unwritten_extents"}}, functions: []string{"ext4_ext_map_blocks [ext4]", "ext4_split_convert_extents [ext4]"}, reach: "ext4_ext_map_blocks", trigger: "extents", disk: true,
		note: "in functions with tracepoints of the module, which are silent in the new code"},
	{name: "CVE-2026-64076", kernel: guest.Debian61, later: "6.1.192-2", take: map[string][]string{"net/bridge/netfilter/ebtables.c": {"ebtables_init"}}, refused: refusal.Initialiser, note: "code that runs when the module is loaded"},
}
