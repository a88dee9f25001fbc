// Package policy reads the server's own policy: a file that belongs to root and
// can only take rights away from whoever gives orders.
//
// Nothing that comes over the network can change it, and a policy that cannot
// be read allows nothing. It must not know about signatures or patches beyond
// their names.
package policy

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/wire"
)

// Path is where the policy lies.
const Path = "/etc/livemend/policy.json"

const (
	maxFile  = 64 << 10
	maxList  = 1000
	maxNudge = 3600 // seconds
)

// ErrPolicy is wrapped by every error of this package.
var ErrPolicy = errors.New("the local policy cannot be used, so nothing is allowed: correct the file, then run livemend-agent policy check")

// ErrDenied is the reason of a refusal by the policy.
var ErrDenied = errors.New("this server's local policy does not allow it")

// Policy is what the server allows.
type Policy struct {
	Apply    bool     // live patches may be applied; they may always be taken off
	Scanners []string // that may be started
	Deny     []string // target paths and build-ids that are never patched

	// What the agent may do by itself about tasks that keep a kernel patch from
	// coming into force. Both are read when the agent starts.
	KernelNudge time.Duration // when it stops and continues them; 0 for never
	KernelForce bool          // switch without waiting for them any longer; nothing is unloaded before a restart then
}

// Default is the policy of a server without a file.
func Default() Policy { return Policy{Apply: true, Scanners: []string{"openscap"}} }

// Load reads the policy at path; without a file it is Default. The file must
// belong to root, or to whoever runs the agent, and nobody else may write it.
func Load(path string) (Policy, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Policy{}, bad(err.Error())
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return Policy{}, bad(err.Error())
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return Policy{}, bad("it is not a file")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return Policy{}, bad("it does not belong to root")
	case info.Mode().Perm()&0o022 != 0:
		return Policy{}, bad("others than its owner may write it")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Policy{}, bad(err.Error())
	}
	if len(b) > maxFile {
		return Policy{}, bad("it is too large")
	}
	return Parse(b)
}

// Parse reads a policy. An absent field keeps its default; an unknown one is
// an error, since a mistyped restriction would otherwise not hold.
func Parse(b []byte) (Policy, error) {
	v, err := cjson.Parse(b)
	if err != nil {
		return Policy{}, bad(err.Error())
	}
	p, c := Default(), cjson.Fields(v)
	for _, m := range v.Members() {
		switch m.Name {
		case "apply":
			p.Apply = c.Bool(m.Name)
		case "scanners":
			p.Scanners = c.Texts(m.Name, maxList, wire.MaxID)
		case "deny":
			p.Deny = c.Texts(m.Name, maxList, wire.MaxMessage)
		case "kernel_nudge_seconds":
			n := c.Int(m.Name)
			if n < 0 || n > maxNudge {
				return Policy{}, bad("kernel_nudge_seconds is not between 0 and 3600")
			}
			p.KernelNudge = time.Duration(n) * time.Second
		case "kernel_force":
			p.KernelForce = c.Bool(m.Name)
		default:
			return Policy{}, bad("the field " + m.Name + " is not known; known are apply, scanners, deny, kernel_nudge_seconds and kernel_force")
		}
	}
	if err := c.Err(); err != nil {
		return Policy{}, bad(err.Error())
	}
	return p, nil
}

// AllowsPatch returns ErrDenied unless the target may be patched.
func (p Policy) AllowsPatch(path, buildID string) error {
	if !p.Apply || has(p.Deny, path) || has(p.Deny, buildID) {
		return ErrDenied
	}
	return nil
}

// AllowsScanner returns ErrDenied unless the scanner may be started.
func (p Policy) AllowsScanner(name string) error {
	if !has(p.Scanners, name) {
		return ErrDenied
	}
	return nil
}

func has(list []string, name string) bool {
	for _, s := range list {
		if s == name {
			return true
		}
	}
	return false
}

func bad(reason string) error { return errors.Join(ErrPolicy, errors.New(reason)) }
