// Package module reads what a Linux kernel module says of itself: its name, the
// kernels that it was built for, whether it is a live patch, and its own
// build-id. The agent compares these with the running kernel before it loads
// anything, since the kernel compares less than one would think.
//
// It is pure and linked into the agent: bytes in, facts out, everything within
// limits. It must not judge the facts, and it must not import fmt or debug/elf.
package module

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"livemend.dev/livemend/patch"
)

// Limits. A module that passes one is refused.
const (
	MaxSize    = 64 << 20 // bytes of a module
	MaxName    = 55       // bytes of a name; the kernel's own limit (MODULE_NAME_LEN)
	MaxMagic   = 255      // bytes of a version magic
	MaxDepends = 64       // modules that one needs

	maxSections = 1 << 14
	maxSection  = 1024     // bytes of the name of a section
	maxInfo     = 64 << 10 // bytes of all that it says of itself
	maxNotes    = 64 << 10 // bytes of its notes
)

// Errors of this package; returned errors wrap one of them.
var (
	ErrFormat = errors.New("this is not a kernel module")                 // the bytes do not follow the format
	ErrLimit  = errors.New("the kernel module is over a limit")           // well formed perhaps, but too large
	ErrFact   = errors.New("the kernel module does not say what it must") // a fact is missing, twice there, or contradicts another
)

// Error says what is wrong with a module.
type Error struct {
	Kind   error // ErrFormat, ErrLimit or ErrFact
	Reason string
}

func (e *Error) Error() string { return e.Kind.Error() + ": " + e.Reason }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Module is what a module says of itself.
type Module struct {
	Name      string        // as /proc/modules shows it
	Arch      string        // as Go names it: amd64, arm64
	Release   string        // of the kernel that it was built for, as uname -r tells it
	Flags     string        // the rest of its version magic, as it stands there
	Livepatch bool          // it says that it is a live patch
	Depends   []string      // modules that have to be loaded before it
	Signed    bool          // a signature is appended; whose, nobody looked
	Versions  bool          // it has the checksums of what it calls; without them the kernel looks at less
	BuildID   patch.BuildID // its own, "" when it has none
}

// Sizes and numbers of the ELF format.
const (
	headerSize  = 64
	sectionSize = 64
	typeREL     = 1
	sectionNone = 8 // SHT_NOBITS
	machineX86  = 62
	machineARM  = 183
)

// nameAt is where a module's name stands in what becomes the kernel's struct
// module: behind a state and a list, on every 64-bit machine.
const nameAt = 24

const signatureMark = "~Module signature appended~\n"

// For reads a module that is to be a live patch for target, and refuses one that
// is none or was built for another kernel. Which kernel of that release it is for
// only the target's build-id tells.
func For(b []byte, target patch.Target) (Module, error) {
	m, err := Read(b)
	switch {
	case err != nil:
		return m, err
	case !m.Livepatch:
		return m, &Error{ErrFact, "it is no live patch"}
	case m.Release != target.Release || m.Arch != target.Arch:
		return m, &Error{ErrFact, "it was built for kernel " + m.Release + " on " + m.Arch + ", its metadata says " + target.Release + " on " + target.Arch}
	}
	return m, nil
}

// Read reads a module.
func Read(b []byte) (Module, error) {
	if len(b) > MaxSize {
		return Module{}, &Error{ErrLimit, "it is too large"}
	}
	le := binary.LittleEndian
	if len(b) < headerSize || string(b[:7]) != "\x7fELF\x02\x01\x01" || le.Uint16(b[16:]) != typeREL {
		return Module{}, &Error{ErrFormat, "it is no relocatable 64-bit ELF object"}
	}
	m := Module{Signed: bytes.HasSuffix(b, []byte(signatureMark))}
	switch le.Uint16(b[18:]) {
	case machineX86:
		m.Arch = "amd64"
	case machineARM:
		m.Arch = "arm64"
	default:
		return Module{}, &Error{ErrFormat, "it is for a processor that is not known here"}
	}
	sections, err := readSections(b)
	if err != nil {
		return Module{}, err
	}
	info, err := sections.one(".modinfo", maxInfo)
	if err != nil {
		return Module{}, err
	}
	if err := m.readInfo(info); err != nil {
		return Module{}, err
	}
	self, err := sections.one(".gnu.linkonce.this_module", MaxSize)
	if err != nil {
		return Module{}, err
	}
	// The kernel goes by this name; people and tools by the other one.
	if end := nameAt + len(m.Name); len(self) <= end || string(self[nameAt:end]) != m.Name || self[end] != 0 {
		return Module{}, &Error{ErrFact, "it has two names"}
	}
	notes, err := sections.one(".note.gnu.build-id", maxNotes)
	if err != nil {
		return Module{}, err
	}
	m.BuildID, _ = patch.NoteBuildID(notes, 4) // one without has none
	versions, err := sections.one("__versions", MaxSize)
	m.Versions = len(versions) > 0
	return m, err
}

// section is a named part of the file.
type section struct{ name, data []byte }

type sections []section

func readSections(b []byte) (sections, error) {
	le := binary.LittleEndian
	at, size, count, names := le.Uint64(b[40:]), le.Uint16(b[58:]), uint64(le.Uint16(b[60:])), uint64(le.Uint16(b[62:]))
	if count > maxSections {
		return nil, &Error{ErrLimit, "it has too many sections"}
	}
	if size != sectionSize || names >= count || at > uint64(len(b)) || count*sectionSize > uint64(len(b))-at {
		return nil, &Error{ErrFormat, "its list of sections is not in it"}
	}
	table := b[at : at+count*sectionSize]
	data := func(i uint64) ([]byte, bool) {
		h := table[i*sectionSize:]
		off, length := le.Uint64(h[24:]), le.Uint64(h[32:])
		switch {
		case le.Uint32(h[4:]) == sectionNone:
			return nil, true
		case off > uint64(len(b)) || length > uint64(len(b))-off:
			return nil, false
		}
		return b[off : off+length], true
	}
	texts, ok := data(names)
	if !ok {
		return nil, &Error{ErrFormat, "the names of its sections are not in it"}
	}
	list := make(sections, 0, count)
	for i := uint64(1); i < count; i++ {
		d, ok := data(i)
		name := uint64(le.Uint32(table[i*sectionSize:]))
		if !ok || name >= uint64(len(texts)) {
			return nil, &Error{ErrFormat, "a section reaches out of it"}
		}
		text := texts[name:min(name+maxSection, uint64(len(texts)))]
		end := bytes.IndexByte(text, 0)
		if end < 0 {
			return nil, &Error{ErrFormat, "the name of a section does not end"}
		}
		list = append(list, section{text[:end], d})
	}
	return list, nil
}

// one returns the section of that name, which may be there once; nil when it is
// not there.
func (s sections) one(name string, limit int) ([]byte, error) {
	var found *section
	for i := range s {
		if string(s[i].name) != name {
			continue
		}
		if found != nil {
			return nil, &Error{ErrFact, "section " + name + " is there twice"}
		}
		found = &s[i]
	}
	switch {
	case found == nil:
		return nil, nil
	case len(found.data) > limit:
		return nil, &Error{ErrLimit, "section " + name + " is too large"}
	}
	return found.data, nil
}

// readInfo reads the lines name=value. The kernel takes the first of a name; a
// module that says one thing twice is refused instead.
func (m *Module) readInfo(info []byte) error {
	var magic string
	seen := map[string]bool{}
	for line := range bytes.SplitSeq(info, []byte{0}) {
		name, value, ok := strings.Cut(string(line), "=")
		if !ok {
			continue // padding
		}
		switch name {
		case "name", "vermagic", "livepatch", "depends":
			if seen[name] {
				return &Error{ErrFact, "its " + name + " is there twice"}
			}
			seen[name] = true
		}
		switch name {
		case "name":
			m.Name = value
		case "vermagic":
			magic = value
		case "livepatch":
			m.Livepatch = value == "Y"
		case "depends":
			if value != "" {
				m.Depends = strings.Split(value, ",")
			}
		}
	}
	switch {
	case m.Name == "":
		return &Error{ErrFact, "it has no name"}
	case magic == "":
		return &Error{ErrFact, "it does not say which kernel it is for"}
	case len(m.Name) > MaxName, len(magic) > MaxMagic, len(m.Depends) > MaxDepends:
		return &Error{ErrLimit, "it says too much of itself"}
	}
	for _, name := range append([]string{m.Name}, m.Depends...) {
		if !validName(name) {
			return &Error{ErrFact, "a module's name has characters that no module's name has"}
		}
	}
	m.Release, m.Flags, _ = strings.Cut(magic, " ")
	for i := range len(magic) {
		if magic[i] < ' ' || magic[i] > '~' {
			return &Error{ErrFact, "its version magic has characters that none has"}
		}
	}
	if m.Release == "" {
		return &Error{ErrFact, "it does not say which kernel it is for"}
	}
	return nil
}

// validName reports whether s can be a part of a path below /sys/module.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= MaxName
}
