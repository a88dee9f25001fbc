package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

const buildID = "04000000140000000300000030313233343536373839"

// server is a running kernel as Debian's 6.1 is.
func server() Identity {
	return Identity{BuildID: buildID, Release: "6.1.0-47-amd64", Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)",
		Arch: "amd64", BootID: "b", Lockdown: "none", Livepatch: true}
}

func TestAdmits(t *testing.T) {
	for name, test := range map[string]struct {
		change func(id *Identity, m *module.Module, target *patch.Target)
		want   error
	}{
		"fits":                     {func(*Identity, *module.Module, *patch.Target) {}, nil},
		"off":                      {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Off = true }, ErrDisabled},
		"no live patching":         {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Livepatch = false }, ErrUnsupported},
		"no modules":               {func(id *Identity, _ *module.Module, _ *patch.Target) { id.NoModules = true }, ErrModulesOff},
		"no live patch":            {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Livepatch = false }, ErrModule},
		"another build":            {func(_ *Identity, _ *module.Module, p *patch.Target) { p.BuildID = "ab" }, ErrOtherKernel},
		"another release":          {func(_ *Identity, _ *module.Module, p *patch.Target) { p.Release = "6.1.0-48-amd64" }, ErrOtherKernel},
		"another processor":        {func(_ *Identity, _ *module.Module, p *patch.Target) { p.Arch = "arm64" }, ErrOtherKernel},
		"a neighbour's module":     {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Release = "6.1.0-48-amd64" }, ErrOtherKernel},
		"module for another cpu":   {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Arch = "arm64" }, ErrOtherKernel},
		"one processor":            {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Flags = "preempt mod_unload modversions " }, ErrOtherKernel},
		"not preemptible":          {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Flags = "SMP mod_unload modversions " }, ErrOtherKernel},
		"kernel not preemptible":   {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Version = "#1 SMP Debian" }, ErrOtherKernel},
		"preemptible, the old way": {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Version = "#1 SMP PREEMPT Debian" }, nil},
		"real time": {func(id *Identity, _ *module.Module, _ *patch.Target) {
			id.Version = "#1 SMP PREEMPT_RT Debian"
		}, ErrOtherKernel},
		"real time, both": {func(id *Identity, m *module.Module, _ *patch.Target) {
			id.Version, m.Flags = "#1 SMP PREEMPT_RT Debian", "SMP preempt_rt mod_unload modversions "
		}, nil},
		"no checksums": {func(_ *Identity, m *module.Module, _ *patch.Target) { m.Versions = false }, ErrNoChecksums},
		"none wanted": {func(_ *Identity, m *module.Module, _ *patch.Target) {
			m.Versions, m.Flags = false, "SMP preempt mod_unload "
		}, nil},
		"signatures enforced":      {func(id *Identity, _ *module.Module, _ *patch.Target) { id.SigEnforce = true }, ErrSignature},
		"locked down":              {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Lockdown = "integrity" }, ErrLockdown},
		"locked down more":         {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Lockdown = "confidentiality" }, ErrLockdown},
		"locked down, and signed":  {func(id *Identity, m *module.Module, _ *patch.Target) { id.Lockdown, m.Signed = "integrity", true }, nil},
		"nobody knows of lockdown": {func(id *Identity, _ *module.Module, _ *patch.Target) { id.Lockdown = "" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			id, target := server(), patch.Target{BuildID: buildID, Release: "6.1.0-47-amd64", Arch: "amd64"}
			m := module.Module{Name: "livemend_a", Arch: "amd64", Release: target.Release, Flags: "SMP preempt mod_unload modversions ", Livepatch: true, Versions: true}
			test.change(&id, &m, &target)
			if err := id.Admits(&m, target); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("Admits = %v, want %v", err, test.want)
			}
		})
	}
}

func TestRunning(t *testing.T) {
	root := t.TempDir()
	notes := "\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x000123456789abcdefghij"
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Running(root); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without files: %v, want ErrUnreachable", err)
	}
	put("sys/kernel/notes", notes)
	put("proc/sys/kernel/osrelease", "6.1.0-47-amd64\n")
	put("proc/sys/kernel/version", "#1 SMP\n")
	put("proc/sys/kernel/random/boot_id", "b-1\n")
	put("proc/cmdline", "quiet livemend.load=off\n")
	id, err := Running(root)
	if err != nil || id.BuildID != "303132333435363738396162636465666768696a" || id.Release != "6.1.0-47-amd64" || id.Version != "#1 SMP" || id.BootID != "b-1" ||
		!id.Off || id.Livepatch || id.Lockdown != "" || id.SigEnforce || id.Taint != 0 {
		t.Errorf("a bare kernel is %+v, %v", id, err)
	}
	put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
	put("sys/module/module/parameters/sig_enforce", "Y\n")
	put("proc/sys/kernel/modules_disabled", "1\n")
	put("proc/sys/kernel/tainted", "45056\n")
	put("sys/kernel/livepatch/x/enabled", "1\n")
	if id, err = Running(root); err != nil || id.Lockdown != "integrity" || !id.SigEnforce || !id.NoModules || id.Taint != 45056 || !id.Livepatch {
		t.Errorf("a guarded kernel is %+v, %v", id, err)
	}
	put("sys/kernel/notes", "nothing")
	if _, err := Running(root); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a build-id: %v, want ErrUnreachable", err)
	}
}

func TestSwitchedOff(t *testing.T) {
	for line, want := range map[string]bool{
		"quiet": false, "quiet livemend=off": true, "livemend.load=off quiet\n": true, "livemend=on": false,
		"xlivemend=off": false, "quiet -- livemend=off": false, "": false,
	} {
		if switchedOff(line) != want {
			t.Errorf("switchedOff(%q) = %v", line, !want)
		}
	}
}

// The words are those of 6.1 and 6.12.
func TestRefusal(t *testing.T) {
	for _, test := range []struct {
		number unix.Errno
		words  string
		want   error
	}{
		{unix.EEXIST, "", ErrNameTaken},
		{unix.EBUSY, "", ErrBusy},
		{unix.EINVAL, "livepatch: symbol 'x' not found in symbol table", ErrSymbol},
		{unix.EINVAL, "livepatch: unresolvable ambiguity for symbol 'x' in object 'vmlinux'", ErrSymbol},
		{unix.EINVAL, "a: disagrees about version of symbol seq_puts / a: Unknown symbol seq_puts (err -22)", ErrChecksums},
		{unix.EINVAL, "", ErrRefused},
		{unix.ENOENT, "a: Unknown symbol x (err -2)", ErrUnresolved},
		{unix.ENOEXEC, "Invalid ELF section header overflow", ErrMalformed},
		{unix.ENOEXEC, "a: disagrees about version of symbol module_layout", ErrChecksums},
		{unix.ENOEXEC, "a: no symbol version for module_layout", ErrChecksums},
		{unix.ENOEXEC, "a: version magic '6.1 SMP' should be '6.1 SMP preempt '", ErrMagic},
		{unix.ENOEXEC, "module a: .gnu.linkonce.this_module section size must match the kernel's built struct module size at run time", ErrLayout},
		{unix.EPERM, "Lockdown: livemend-agent: unsigned module loading is restricted; see man kernel_lockdown.7", ErrLockdown},
		{unix.EPERM, "", ErrPermission},
		{unix.EKEYREJECTED, "Loading of unsigned module is rejected", ErrSignature},
		{unix.ENOMEM, "", ErrMemory},
		{unix.EIO, "", ErrRefused},
	} {
		err := refusal(test.number, test.words)
		if !errors.Is(err, test.want) || !errors.Is(err, test.number) || !strings.Contains(err.Error(), "nothing was") && !strings.Contains(err.Error(), "not loaded") {
			t.Errorf("refusal(%d, %q) = %v, want %v", test.number, test.words, err, test.want)
		}
	}
}

func TestHealth(t *testing.T) {
	for record, sick := range map[string]bool{
		"4,1,5,-;BUG: unable to handle page fault for address: 0000000000000000":                           true,
		"1,1,5,-;BUG: kernel NULL pointer dereference, address: 0000000000000000":                          true,
		"4,1,5,-;Oops: 0002 [#1] PREEMPT SMP PTI":                                                          true,
		"2,1,5,-;kernel BUG at mm/slub.c:307!":                                                             true,
		"4,1,5,-;general protection fault, probably for non-canonical address 0xdead: 0000 [#1]":           true,
		"4,1,5,-;WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2":                                         true,
		"0,1,5,-;watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [cat:123]":                              true,
		"3,1,5,-;rcu: INFO: rcu_preempt self-detected stall on CPU":                                        true,
		"3,1,5,-;rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:":                                    true,
		"4,1,5,-;Oops: Oops: 0002 [#1] SMP NOPTI":                                                          true,
		"4,1,5,-;Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#2] SMP": true,
		"4,1,5,-;divide error: 0000 [#12] PREEMPT SMP PTI":                                                 true,
		"4,1,5,-;BUG: scheduling while atomic: cat/1/0x2":                                                  true,
		"1,1,5,-;BUG: Bad page state in process cat  pfn:1":                                                true,
		"4,1,5,-;WARNING: CPU: 12 PID: 1 at x":                                                             true,
		"3,1,5,-;INFO: task cat:123 blocked for more than 120 seconds.":                                    false,
		// What a process can bring about by its name, and by that of a library.
		"6,1,5,-;BUG: Bad page s[12]: segfault at 0 ip 0 sp 0 error 4 in BUG: Bad page state [400000+1000]": false,
		"6,1,5,-;Oops: 0002 [#1][12]: segfault at 0 ip 0 sp 0 error 4 in ] SMP[400000+1000]":                false,
		"4,1,5,-;Oops: 0002 [#1] invoked oom-killer: gfp_mask=0x1":                                          false,
		"4,1,5,-;WARNING: CPU: 1 invoked oom-killer: gfp_mask=0x1":                                          false,
		"6,1,5,-;WARNING: CPU: 1[12]: segfault at 0 ip 0 sp 0 error 4 in  PID: 1[400000+1000]":              false,
		"6,1,5,-;kernel BUG at m[12]: segfault at 0 ip 0 sp 0 error 4 in x![400000+1000]":                   false,
		"6,1,5,-;0002 [#1] SMP[12]: segfault at 0 ip 0 sp 0 error 4 in x[400000+1000]":                      false,
		"4,1,5,-;rcu: INFO: rcu_: page allocation failure: order:0, mode:0x1(stall)":                        false,
		"5,1,5,-;livepatch: enabling patch 'livemend_a'":                                                    false,
		"6,1,5,-;rcu: Hierarchical SRCU implementation.":                                                    false,
		"6,1,5,-;traps: cat[1] general protection fault ip:1 sp:2 error:0 in cat[400000+1000]":              false,
		"6,1,5,-;cat[123]: segfault at 0 ip 00007f sp 00007f error 6 in cat[400000+1000]":                   false,
		"12,1,5,-;BUG: says a program":                                                                      false,
		"4,1,5,-;livemend_a: loading out-of-tree module taints kernel.":                                     false,
		"4,1,5,-;INFO: task BUG: is fine":                                                                   false,
		"nonsense":                                                                                          false,
		"":                                                                                                  false,
		"4,1,5,-;nothing\n SUBSYSTEM=BUG: of a device":                                                      false,
	} {
		text, _ := LogLine(record)
		if got := Symptom(text); (got != "") != sick {
			t.Errorf("%q is %q", record, got)
		}
	}
	for _, test := range []struct {
		before, after uint64
		sick          bool
	}{
		{0, 45056, false}, {45056, 45056 | TaintOops, true}, {TaintOops, TaintOops | 45056, false}, {0, TaintWarning, true},
		{0, TaintSoftLockup, true}, {0, TaintBadPage, true}, {0, 1 << 4, false}, {TaintWarning, 0, false},
	} {
		if got := Tainted(test.before, test.after); (got != "") != test.sick {
			t.Errorf("taint from %d to %d is %q", test.before, test.after, got)
		}
	}
}

func TestTasks(t *testing.T) {
	for stat, want := range map[string]struct {
		command string
		state   byte
		kernel  bool
	}{
		"12 (cat) S 1 12 12 0 -1 4194304 100":  {"cat", 'S', false},
		"12 (a) b) D 1 12 12 0 -1 4194304 100": {"a) b", 'D', false},
		"2 (kthreadd) S 0 0 0 0 -1 2129984 0":  {"kthreadd", 'S', true},
		"2 (short) S":                          {"short", '?', false},
		"nonsense":                             {"", '?', false},
		"":                                     {"", '?', false},
	} {
		if command, state, kernel := parseStat(stat); command != want.command || state != want.state || kernel != want.kernel {
			t.Errorf("parseStat(%q) = %q, %c, %v", stat, command, state, kernel)
		}
	}
	stack := "[<0>] msleep+0x2d/0x40\n[<0>] show_d+0x15/0x30 [livemend_target]\nnonsense\n"
	if got := functions(stack); got != "msleep+0x2d show_d+0x15" {
		t.Errorf("functions = %q", got)
	}
	task := Task{PID: 1, TID: 2, Command: "a\nb", State: 'D', Stack: functions(stack)}
	if got, want := task.String(), `task 2 ("a\nb", state D) is in msleep+0x2d show_d+0x15`; got != want {
		t.Errorf("String = %s, want %s", got, want)
	}
}
