package guest

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// archive is an initial file system: a cpio archive in the form "newc", which
// the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format).
type archive struct {
	buf   bytes.Buffer
	inode int
	dirs  []string // that are in it
}

// Types of files, as stat(2) has them.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
)

// dir adds a folder and those above it. Everybody may enter them: programs of
// other users live there.
func (a *archive) dir(name string) {
	name = strings.Trim(name, "/")
	if name == "" || name == "." || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(path.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, typeDir|0o755, nil)
}

// file adds a file, with its folders.
func (a *archive) file(name string, mode uint32, b []byte) {
	a.dir(path.Dir(name))
	a.entry(strings.TrimPrefix(name, "/"), typeFile|mode, b)
}

func (a *archive) entry(name string, mode uint32, b []byte) {
	a.inode++
	fmt.Fprintf(&a.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(b), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.buf.Write(b)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// bytes ends the archive and returns it.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
