package kernel

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

// Bits of the kernel's taint (Documentation/admin-guide/tainted-kernels).
const (
	TaintBadPage    = 1 << 5
	TaintOops       = 1 << 7
	TaintWarning    = 1 << 9
	TaintLivepatch  = 1 << 15
	TaintSoftLockup = 1 << 14
)

// Identity is what the agent knows of the running kernel.
type Identity struct {
	BuildID    patch.BuildID // of vmlinux
	Release    string        // uname -r
	Version    string        // uname -v
	Arch       string        // as Go names it
	BootID     string        // of this boot
	Lockdown   string        // none, integrity, confidentiality; "" when it cannot be told
	SigEnforce bool          // modules need a signature
	NoModules  bool          // loading modules was switched off for good
	Livepatch  bool          // the kernel can be live-patched
	Off        bool          // it was started with livemend=off
	Taint      uint64
}

// maxFact bounds a file of the kernel that is read for a fact, in bytes.
const maxFact = 64 << 10

// Running reads what names and limits the running kernel from /proc and /sys
// below root. An error means that it cannot be told apart from other kernels.
func Running(root string) (Identity, error) {
	id := Identity{Arch: runtime.GOARCH}
	notes, err := fact(root, "sys/kernel/notes")
	if err != nil {
		return id, &Error{Kind: ErrUnreachable, Detail: err.Error()}
	}
	id.BuildID, _ = patch.NoteBuildID([]byte(notes), 4) // checked below
	for _, f := range []struct {
		name string
		to   *string
	}{{"proc/sys/kernel/osrelease", &id.Release}, {"proc/sys/kernel/version", &id.Version}, {"proc/sys/kernel/random/boot_id", &id.BootID}} {
		text, err := fact(root, f.name)
		if err != nil {
			return id, &Error{Kind: ErrUnreachable, Detail: err.Error()}
		}
		*f.to = strings.TrimSpace(text)
	}
	if id.BuildID == "" || id.Release == "" || id.BootID == "" {
		return id, &Error{Kind: ErrUnreachable, Detail: "the kernel does not say which one it is"}
	}
	// What cannot be read of the rest, the kernel decides by itself at loading.
	text, _ := fact(root, "sys/kernel/security/lockdown")
	if _, rest, ok := strings.Cut(text, "["); ok {
		id.Lockdown, _, _ = strings.Cut(rest, "]")
	}
	text, _ = fact(root, "sys/module/module/parameters/sig_enforce")
	id.SigEnforce = strings.TrimSpace(text) == "Y"
	text, _ = fact(root, "proc/sys/kernel/modules_disabled")
	id.NoModules = strings.TrimSpace(text) == "1"
	text, _ = fact(root, "proc/sys/kernel/tainted")
	id.Taint, _ = strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	text, _ = fact(root, "proc/cmdline")
	id.Off = switchedOff(text)
	info, err := os.Stat(filepath.Join(root, "sys/kernel/livepatch"))
	id.Livepatch = err == nil && info.IsDir()
	return id, nil
}

// switchedOff looks for the words that disable loading. What follows "--" is for
// the first process, not for the kernel and not for us.
func switchedOff(cmdline string) bool {
	for word := range strings.FieldsSeq(cmdline) {
		switch word {
		case "--":
			return false
		case "livemend=off", "livemend.load=off":
			return true
		}
	}
	return false
}

// fact returns the start of a small file.
func fact(root, name string) (string, error) {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFact))
	return string(b), err
}

// Admits returns why a patch must not be loaded into this kernel, nil when it
// may. The kernel looks at less: it loads a neighbour's module when the
// checksums of what it calls happen to agree.
func (id *Identity) Admits(m *module.Module, target patch.Target) error {
	differs := func(what, is, wants string) error {
		return &Error{Kind: ErrOtherKernel, Detail: what + " is " + strconv.Quote(is) + ", the patch is for " + strconv.Quote(wants)}
	}
	switch {
	case id.Off:
		return &Error{Kind: ErrDisabled}
	case !id.Livepatch:
		return &Error{Kind: ErrUnsupported}
	case id.NoModules:
		return &Error{Kind: ErrModulesOff}
	case !m.Livepatch:
		return &Error{Kind: ErrModule, Detail: "module " + m.Name + " is no live patch"}
	case id.BuildID != target.BuildID:
		return differs("the running kernel's build-id", string(id.BuildID), string(target.BuildID))
	case id.Release != target.Release:
		return differs("the running kernel", id.Release, target.Release)
	case id.Arch != target.Arch:
		return differs("the processor", id.Arch, target.Arch)
	case id.Release != m.Release:
		return differs("the running kernel", id.Release, m.Release)
	case id.Arch != m.Arch:
		return differs("the processor", id.Arch, m.Arch)
	}
	for _, f := range []struct{ flag, word string }{{"SMP", "SMP"}, {"preempt", "PREEMPT"}, {"preempt_rt", "PREEMPT_RT"}} {
		if hasWord(m.Flags, f.flag) != id.built(f.word) {
			return differs("the running kernel's build", id.Version, m.Flags)
		}
	}
	switch {
	case hasWord(m.Flags, "modversions") && !m.Versions:
		return &Error{Kind: ErrNoChecksums}
	case !m.Signed && id.SigEnforce:
		return &Error{Kind: ErrSignature}
	case !m.Signed && (id.Lockdown == "integrity" || id.Lockdown == "confidentiality"):
		return &Error{Kind: ErrLockdown}
	}
	return nil
}

// built reports whether uname -v says that the kernel was built so. Every way of
// preemption but the real-time one makes modules say "preempt".
func (id *Identity) built(word string) bool {
	if word != "PREEMPT" {
		return hasWord(id.Version, word)
	}
	return hasWord(id.Version, "PREEMPT") || hasWord(id.Version, "PREEMPT_DYNAMIC") || hasWord(id.Version, "PREEMPT_LAZY")
}

func hasWord(text, word string) bool {
	for w := range strings.FieldsSeq(text) {
		if w == word {
			return true
		}
	}
	return false
}
