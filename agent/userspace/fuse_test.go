package userspace

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// quietFS is a file system of a user with one file, which answers until it is
// told to be quiet: then every question about the file waits for ever.
type quietFS struct {
	fd      int
	content []byte
	quiet   atomic.Bool
	asked   atomic.Int32 // questions that wait
}

// Requests of the FUSE protocol that one file needs.
const (
	fuseLookup  = 1
	fuseForget  = 2
	fuseGetattr = 3
	fuseOpen    = 14
	fuseRead    = 15
	fuseInit    = 26
	fuseFile    = 2 // node of the file; 1 is the root
	fuseInHead  = 40
)

// mountQuiet mounts one in a new folder and returns it with the file's path.
func mountQuiet(t *testing.T, content []byte) (*quietFS, string) {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this machine has no FUSE: %v", err)
	}
	q := &quietFS{fd: fd, content: content}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("quiet", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		t.Skipf("FUSE cannot be mounted here: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- q.serve() }()
	t.Cleanup(func() {
		// Whoever still waits gets an error when the connection is aborted.
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
		<-served
	})
	return q, filepath.Join(dir, "lib")
}

// serve answers until the connection ends.
func (q *quietFS) serve() error {
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(q.fd, buf)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err // ENODEV: unmounted
		}
		le := binary.LittleEndian
		op, unique, node := le.Uint32(buf[4:]), le.Uint64(buf[8:]), le.Uint64(buf[16:])
		if q.quiet.Load() && node == fuseFile {
			q.asked.Add(1)
			continue
		}
		answer, errno := q.answer(op, node, buf[fuseInHead:n])
		if op == fuseForget {
			continue
		}
		out := make([]byte, 16, 16+len(answer))
		le.PutUint32(out, uint32(16+len(answer)))
		le.PutUint32(out[4:], uint32(-int32(errno)))
		le.PutUint64(out[8:], unique)
		if _, err := unix.Write(q.fd, append(out, answer...)); err != nil && err != unix.ENOENT {
			return err
		}
	}
}

func (q *quietFS) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	le := binary.LittleEndian
	switch op {
	case fuseInit:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], 1<<17) // largest write
		return out, 0
	case fuseLookup:
		out := make([]byte, 40, 128)
		le.PutUint64(out, fuseFile)
		return append(out, q.attributes(fuseFile)...), 0
	case fuseGetattr:
		return append(make([]byte, 16), q.attributes(node)...), 0
	case fuseOpen:
		return make([]byte, 16), 0
	case fuseRead:
		off, size := le.Uint64(in[8:]), uint64(le.Uint32(in[16:]))
		off = min(off, uint64(len(q.content)))
		return q.content[off:min(off+size, uint64(len(q.content)))], 0
	}
	return nil, unix.ENOSYS
}

// attributes are a struct fuse_attr.
func (q *quietFS) attributes(node uint64) []byte {
	a := make([]byte, 88)
	le := binary.LittleEndian
	le.PutUint64(a, node)
	mode := uint32(unix.S_IFDIR | 0o755)
	if node == fuseFile {
		mode = unix.S_IFREG | 0o755
		le.PutUint64(a[8:], uint64(len(q.content)))
		le.PutUint64(a[16:], uint64(len(q.content)+511)/512)
	}
	le.PutUint32(a[60:], mode)
	le.PutUint32(a[64:], 1)
	le.PutUint32(a[80:], uint32(os.Getpagesize()))
	return a
}
