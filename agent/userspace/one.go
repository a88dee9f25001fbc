package userspace

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/guard"
	"livemend.dev/livemend/patch"
)

// maxSightings bounds the files whose place is remembered.
const maxSightings = 4096

// sighting is a process that had a file with the build-id mapped.
type sighting struct {
	id  patch.BuildID
	pid int
}

// spans returns the executable ranges of an image.
func (c *carrier) spans() (out []guard.Span) {
	for _, s := range c.code() {
		out = append(out, guard.Span{From: s.from, To: s.to})
	}
	return out
}

// BuildIDs returns the build-ids of everything that the process has mapped as
// program code. One that ended has none.
func (e *Engine) BuildIDs(ctx context.Context, pid int) ([]patch.BuildID, error) {
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	h, err := look(pid)
	if err != nil {
		return nil, quietly(err)
	}
	defer h.close()
	maps, err := h.mappings(make([]byte, 64<<10), nil)
	if err != nil {
		return nil, quietly(err)
	}
	var seen []fileKey
	var ids []patch.BuildID
	for i := range maps {
		m := &maps[i]
		if m.kind != kindFile || m.prot&protExec == 0 || slices.Contains(seen, m.file) {
			continue
		}
		seen = append(seen, m.file)
		if o, err := e.inspect(h, m); err == nil && !slices.Contains(ids, o.buildID) {
			ids = append(ids, o.buildID)
		}
	}
	return ids, nil
}

// ApplyTo does what Apply does for one process only, and watches no canary: the
// patch is in force elsewhere. There is no result when the process does not map
// the library.
func (e *Engine) ApplyTo(ctx context.Context, p Patch, pid int) ([]Result, error) {
	return e.all(ctx, p, doApply, pid)
}

// targets returns the processes that map the library, of all that were not looked
// at before or of one, and those that might share memory with them: only a process
// that maps the library can, but which ones do is known of all only after a look at
// each.
func (e *Engine) targets(ctx context.Context, id patch.BuildID, pid int, looked map[int]bool) (procs []Process, peers []int, err error) {
	if pid == 0 {
		fresh := len(looked) == 0
		if procs, err = e.find(ctx, id, looked); err != nil {
			return nil, nil, err
		}
		if fresh {
			e.forget(id)
		}
		for i := range procs {
			e.see(id, procs[i])
			peers = append(peers, procs[i].PID)
		}
		return procs, peers, nil
	}
	s := scan{engine: e, id: id, match: make(map[fileKey]bool), buf: make([]byte, 64<<10)}
	proc, ok, _ := s.process(pid)
	if !ok {
		if s.denied > 0 {
			err = ErrPermission
		}
		return nil, nil, err
	}
	e.see(id, proc)
	peers, err = processes()
	return []Process{proc}, peers, err
}

// quietly drops the error that only says that the process is gone.
func quietly(err error) error {
	if err == errEnded {
		return nil
	}
	return err
}

// forget drops what was noted of files with a build-id.
func (e *Engine) forget(id patch.BuildID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, s := range e.where {
		if s.id == id {
			delete(e.where, key)
		}
	}
}

// see notes where one process has it.
func (e *Engine) see(id patch.BuildID, p Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range p.files {
		if _, known := e.where[key]; known || len(e.where) < maxSightings {
			e.where[key] = sighting{id, p.PID}
		}
	}
}

// Library is one file with a build-id that was asked for, named by the kernel's
// identity of it.
type Library struct {
	BuildID patch.BuildID
	Device  uint64
	Inode   uint64

	pid int
}

// Libraries returns the files that the last looks at processes found mapped.
func (e *Engine) Libraries() []Library {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Library, 0, len(e.where))
	for key, s := range e.where {
		out = append(out, Library{s.id, key.dev, key.inode, s.pid})
	}
	return out
}

// Open returns a descriptor that names the file and opens nothing (O_PATH), by
// way of the process that has it mapped, so in whatever root or container the
// file lies. The caller closes it.
func (l Library) Open() (fd int, err error) {
	h, err := look(l.pid)
	if err != nil {
		return -1, err
	}
	defer h.close()
	maps, err := h.mappings(make([]byte, 64<<10), nil)
	if err != nil {
		return -1, err
	}
	for i := range maps {
		if m := &maps[i]; m.kind == kindFile && m.file == (fileKey{l.Device, l.Inode}) {
			return h.open(m.name(), unix.O_PATH)
		}
	}
	return -1, errNotMapped
}
