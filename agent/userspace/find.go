package userspace

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
)

// errQuiet says that a file system did not answer in time. One that a user
// serves (FUSE) can keep a reader waiting for ever.
var errQuiet = errors.New("the file system of a mapped file does not answer")

// Find returns every process that has content with the build-id mapped as
// program code, the youngest first. Processes that end meanwhile are not in it.
func (e *Engine) Find(ctx context.Context, id patch.BuildID) ([]Process, error) {
	if !id.Valid() {
		return nil, &patchError{"its build-id is not a build-id"}
	}
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return e.find(ctx, id, nil)
}

// scan is one look at all processes. A file that many have mapped is read once.
type scan struct {
	engine *Engine
	id     patch.BuildID
	match  map[fileKey]bool
	buf    []byte
	maps   []mapping
	denied int
}

// find does what Find does. Numbers of processes in looked are passed over, and
// those that were looked at are added to it.
func (e *Engine) find(ctx context.Context, id patch.BuildID, looked map[int]bool) ([]Process, error) {
	if !supported {
		return nil, ErrUnsupported
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	s := scan{engine: e, id: id, match: make(map[fileKey]bool), buf: make([]byte, 256<<10)}
	first := len(looked) == 0
	var found []Process
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if looked[pid] {
			continue
		}
		p, ok, sure := s.process(pid)
		if ok {
			found = append(found, p)
		}
		if sure && looked != nil {
			looked[pid] = true
		}
	}
	if first && s.denied > 0 && len(s.match) == 0 {
		return nil, ErrPermission // not of one process among few: of all that there are
	}
	slices.SortFunc(found, func(a, b Process) int {
		if a.Start != b.Start {
			return cmpUp(b.Start, a.Start)
		}
		return cmpUp(uint64(b.PID), uint64(a.PID))
	})
	return found, nil
}

// processes returns the numbers of all processes.
func processes() ([]int, error) {
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.New("the folder /proc cannot be read: " + err.Error() + "; nothing was changed")
	}
	defer unix.Close(proc)
	pids, err := numbers(proc, make([]byte, direntBytes), nil, maxProcesses)
	if err != nil {
		return nil, errors.New("the list of processes cannot be read: " + err.Error() + "; nothing was changed")
	}
	return pids, nil
}

// maxGlances bounds how often a process whose mappings change is looked at.
const maxGlances = 3

// process looks at one process. One that cannot be read has ended or is none of
// ours to read; permission is counted. sure is false when its mappings changed
// all the time, so that another look may find more.
func (s *scan) process(pid int) (p Process, ok, sure bool) {
	h, err := glance(pid)
	if err != nil {
		return Process{}, false, true
	}
	defer h.close()
	for range maxGlances {
		if p, ok, sure = s.glance(h); ok || sure {
			break
		}
	}
	if !ok {
		return Process{}, false, sure
	}
	// The folder stays the same process's, so what it says now is about it, too.
	p.Command, p.Start, err = h.stat()
	return p, err == nil, true
}

// glance looks at a process's mappings once.
func (s *scan) glance(h *handle) (p Process, ok, sure bool) {
	var err error
	if s.maps, err = h.mappings(s.buf, s.maps); err != nil {
		if err == unix.EACCES || err == unix.EPERM {
			s.denied++
		}
		return Process{}, false, err != errMaps // read in pieces, they need not fit together
	}
	p, sure = Process{PID: h.pid}, true
	for i := range s.maps {
		m := &s.maps[i]
		if m.kind != kindFile || m.prot&protExec == 0 || slices.Contains(p.files, m.file) {
			continue
		}
		match, known := s.match[m.file]
		if !known {
			o, err := s.engine.inspect(h, m)
			switch {
			case err == unix.EACCES || err == unix.EPERM:
				s.denied++
				continue
			case err == errEnded: // this mapping is gone, the file may be mapped elsewhere
				sure = false
				continue
			}
			match = err == nil && o.buildID == s.id
			s.match[m.file] = match
		}
		if match {
			p.files = append(p.files, m.file)
		}
	}
	return p, len(p.files) > 0, sure
}

// inspect reads the identity of the file behind a mapping through
// /proc/PID/map_files, which leads to the file itself whatever became of its
// name, and whichever root and mounts the process has.
func (e *Engine) inspect(h *handle, m *mapping) (*object, error) {
	if !e.mayAsk(m.file.dev) {
		return nil, errQuiet
	}
	dir, err := unix.FcntlInt(uintptr(h.dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		e.unstick()
		return nil, err
	}
	type answer struct {
		o   *object
		err error
	}
	ch := make(chan answer, 1)
	name := m.name()
	go func() {
		defer e.unstick()
		defer unix.Close(dir)
		o, err := inspectFile(dir, name)
		ch <- answer{o, err}
	}()
	timer := time.NewTimer(e.opts.Answer)
	defer timer.Stop()
	select {
	case a := <-ch:
		e.heard(m.file.dev, true)
		return a.o, a.err
	case <-timer.C:
		e.heard(m.file.dev, false)
		return nil, errQuiet
	}
}

// quietFor is how long a device that did not answer is not asked again. A busy
// disk may be slow once.
const quietFor = time.Minute

// mayAsk reports whether a file on the device may be opened, and counts the
// goroutine that will do it. A device that did not answer is not asked again for
// a while. When many threads wait already, devices that anybody can make up
// (major number 0) are asked only if they have answered before.
func (e *Engine) mayAsk(dev uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	last, asked := e.answers[dev]
	if asked && !last.came && time.Since(last.at) < quietFor || !(asked && last.came) && e.stuck >= maxStuck && dev>>32 == 0 {
		return false
	}
	e.stuck++
	return true
}

// heard remembers whether a device answered.
func (e *Engine) heard(dev uint64, answered bool) {
	e.mu.Lock()
	e.answers[dev] = response{answered, time.Now()}
	e.mu.Unlock()
}

func (e *Engine) unstick() {
	e.mu.Lock()
	e.stuck--
	e.mu.Unlock()
}

// inspectFile opens what must be a regular file and reads its ELF headers. A
// device is not opened: that alone can have an effect.
func inspectFile(dir int, name string) (*object, error) {
	path, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNotELF
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	defer unix.Close(fd)
	return readObject(file(fd))
}

// file reads a descriptor at offsets.
type file int

func (f file) ReadAt(b []byte, off int64) (int, error) {
	for n := 0; n < len(b); {
		k, err := unix.Pread(int(f), b[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case k == 0:
			return n, io.EOF
		default:
			n += k
		}
	}
	return len(b), nil
}
