// Package inventory says what is on this system: the facts that name it, the
// libraries and programs that processes have mapped, told apart by build-id,
// and the distribution's packages.
//
// It only reads. Files that processes have mapped may belong to anybody and
// are read as hostile input, within limits and never for longer than a moment.
// It must not judge what it finds, change anything, or import fmt.
package inventory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

const (
	maxSmall = 64 << 10 // bytes read of a small file of the system
)

// Collector collects snapshots. It remembers the build-ids of files that did
// not change. Not for concurrent use.
type Collector struct {
	root  string // "/"; tests look elsewhere
	files *reader
	known map[fileVersion]string // build-ids, "" for files without one
}

// New returns a Collector for this system.
func New() *Collector { return newCollector("/") }

func newCollector(root string) *Collector {
	return &Collector{root: root, files: newReader(), known: map[fileVersion]string{}}
}

// Facts returns what names and describes the system. A fact that cannot be read
// is empty; a system without host name or machine-id is an error, since the
// platform could not tell it from others.
func (c *Collector) Facts() (wire.Facts, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return wire.Facts{}, err
	}
	f := wire.Facts{
		Hostname:  clean(cString(uts.Nodename[:]), wire.MaxID),
		MachineID: clean(strings.TrimSpace(c.small("etc/machine-id")), wire.MaxID),
		Kernel:    clean(cString(uts.Release[:]), wire.MaxID),
		Arch:      runtime.GOARCH,
	}
	for line := range strings.SplitSeq(c.small("etc/os-release"), "\n") {
		name, value, _ := strings.Cut(line, "=")
		value = clean(strings.Trim(strings.TrimSpace(value), `"'`), wire.MaxID)
		switch name {
		case "ID":
			f.OS = value
		case "VERSION_ID":
			f.OSVersion = value
		}
	}
	if id, ok := patch.NoteBuildID([]byte(c.small("sys/kernel/notes")), 4); ok {
		f.KernelID = string(id)
	}
	switch {
	case f.Hostname == "":
		return f, errors.New("this system has no host name; nothing was done: set one with hostnamectl and try again")
	case f.MachineID == "":
		return f, errors.New("this system has no /etc/machine-id; nothing was done: make one with systemd-machine-id-setup and try again")
	}
	return f, nil
}

// BootID returns the kernel's name of this boot, "" when it cannot be read.
func (c *Collector) BootID() string {
	return clean(strings.TrimSpace(c.small("proc/sys/kernel/random/boot_id")), wire.MaxID)
}

// Snapshot returns what is on the system now; the caller fills in Applied.
func (c *Collector) Snapshot(ctx context.Context) (wire.Snapshot, error) {
	facts, err := c.Facts()
	if err != nil {
		return wire.Snapshot{}, err
	}
	libraries, err := c.libraries(ctx)
	if err != nil {
		return wire.Snapshot{}, err
	}
	packages, err := c.packages()
	return wire.Snapshot{Facts: facts, BootID: c.BootID(), Libraries: libraries, Packages: packages}, err
}

// Encode returns s as it is sent. When it would not fit into one frame, libraries
// and packages at the end of their lists are left out and whole is false.
func Encode(s wire.Snapshot) (body []byte, whole bool) {
	whole = true
	for body = s.Encode(); len(body) > wire.MaxFrame; body = s.Encode() {
		whole = false
		if len(s.Packages) == 0 && len(s.Libraries) == 0 {
			s.Applied = s.Applied[:len(s.Applied)/2]
		}
		s.Packages, s.Libraries = s.Packages[:len(s.Packages)*3/4], s.Libraries[:len(s.Libraries)*3/4]
	}
	return body, whole
}

// small returns the start of a small file, "" when it cannot be read.
func (c *Collector) small(name string) string {
	f, err := os.Open(filepath.Join(c.root, name))
	if err != nil {
		return ""
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxSmall))
	if err != nil {
		return ""
	}
	return string(b)
}

// clean makes s a short text that any reader understands: valid UTF-8 without
// control characters, at most max bytes.
func clean(s string, max int) string {
	plain := len(s) <= max
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	out := make([]byte, 0, min(len(s), max))
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			r = '?'
		}
		if len(out)+utf8.RuneLen(r) > max {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
