package userspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// maxStatePages bounds how many pages of one target are looked at for state areas.
const maxStatePages = 1 << 14

// statePagesPerMapping bounds them for one mapping; ours begins with its area.
const statePagesPerMapping = 64

var (
	errNotMapped = errors.New("it does not map the library any more")
	errTwice     = errors.New("it maps the library more than once, which is not supported")
	errShared    = errors.New("it maps the library's code shared, so that a patch would change the file")
)

// target is one process with the library in it, as it is at one moment.
type target struct {
	h    *handle
	maps []mapping
	obj  *object
	file fileKey
	bias uint64
}

// locate finds the library in a process by the content of what it maps. hints
// only say where to look first.
func (e *Engine) locate(h *handle, id patch.BuildID, hints []fileKey) (*target, error) {
	ms, err := h.mappings(make([]byte, 64<<10), nil)
	if err != nil {
		return nil, err
	}
	t := &target{h: h, maps: ms}
	unsure := ""
	for _, first := range []bool{true, false} {
		seen := make([]fileKey, 0, 16)
		for i := range ms {
			m := &ms[i]
			hinted := slices.Contains(hints, m.file)
			if m.kind != kindFile || m.prot&protExec == 0 || hinted != first || slices.Contains(seen, m.file) {
				continue
			}
			seen = append(seen, m.file)
			o, err := e.inspect(h, m)
			if err == unix.EACCES || err == unix.EPERM {
				return nil, ErrPermission
			}
			switch err {
			case errEnded: // of this mapping
				unsure = "its mappings change"
			case errQuiet:
				unsure = errQuiet.Error()
			}
			if err != nil || o.buildID != id {
				continue
			}
			if t.obj != nil {
				return nil, errTwice
			}
			t.obj, t.file = o, m.file
		}
		if t.obj != nil {
			break
		}
	}
	switch {
	case t.obj == nil && unsure != "" && !h.ended(0):
		return nil, &busyError{unsure}
	case t.obj == nil:
		return nil, errNotMapped
	}
	if t.obj.arch != arch {
		return nil, errors.New("the library is not for " + arch)
	}
	return t, t.findBias()
}

// findBias sets where the library was loaded; all its code must agree.
func (t *target) findBias() error {
	found := false
	for i := range t.maps {
		m := &t.maps[i]
		if m.file != t.file || m.kind != kindFile || m.prot&protExec == 0 {
			continue
		}
		if m.prot&protShared != 0 {
			return errShared
		}
		bias, ok := t.obj.bias(m.start, m.off)
		if !ok || bias%pageSize != 0 {
			return errors.New("the library is not mapped as its headers say")
		}
		if found && bias != t.bias {
			return errTwice
		}
		t.bias, found = bias, true
	}
	return nil
}

// span returns the library's addresses.
func (t *target) span() (low, high uint64) {
	return t.bias + t.obj.low, t.bias + t.obj.high
}

// isCode reports whether the addresses are the library's own code.
func (t *target) isCode(addr, size uint64) bool {
	m := find(t.maps, addr)
	if m == nil || m.kind != kindFile || m.file != t.file || m.prot&protExec == 0 || m.end-addr < size {
		return false
	}
	return t.bias+t.obj.high > addr // the mapping itself was checked by findBias
}

// carriers returns the images in the process that claim to be for this library
// where it lies now. The claims are only well formed, not proven.
func (t *target) carriers(id patch.BuildID) ([]*carrier, error) {
	var out []*carrier
	left := maxStatePages
	low, high := t.span()
	for i := range t.maps {
		m := &t.maps[i]
		if m.kind != kindAnon || m.prot != protRead || m.end+1<<32 < low || m.start > high+1<<32 {
			continue
		}
		pages := int(min((m.end-m.start)/pageSize, statePagesPerMapping))
		if left -= pages; left < 0 {
			return nil, errors.New("it has more read-only memory near the library than the agent looks at")
		}
		for at := m.start; at < m.start+uint64(pages)*pageSize; {
			c, err := t.carrierAt(at, m.end)
			if err != nil {
				return nil, err
			}
			if c == nil {
				at += pageSize
				continue
			}
			if c.buildID == id && c.bias == t.bias {
				out = append(out, c)
			}
			at += stateSize(len(c.hunks))
		}
	}
	return out, nil
}

// carrierAt reads the state area at an address, nil when there is none.
func (t *target) carrierAt(at, end uint64) (*carrier, error) {
	var head [stateHead]byte
	if _, err := t.h.ReadAt(head[:], int64(at)); err != nil {
		if err == errEnded {
			return nil, err
		}
		return nil, nil // unreadable memory is no state area
	}
	size := stateLength(head[:])
	if size == 0 || size > end-at {
		return nil, nil
	}
	area := make([]byte, size)
	if _, err := t.h.ReadAt(area, int64(at)); err != nil {
		return nil, err
	}
	c, ok := decodeState(area, at)
	if !ok {
		return nil, nil
	}
	return c, nil
}

// holds reports whether the memory at c is p's image: code and constants as p
// places them there, under the protections that they must have, with the given
// addresses of its imports.
func (t *target) holds(c *carrier, p *Patch, imports []uint64) (bool, error) {
	if !c.is(p) || !bytes.Equal(c.encode(), newCarrier(p, c.image, t.bias).encode()) {
		return false, nil
	}
	want, err := p.File.Place(c.image, t.bias, imports...)
	if err != nil {
		return false, nil
	}
	off := uint64(0)
	for _, s := range p.File.Segments {
		at, size := c.image+off, uint64(s.Size)
		if !t.protected(at, at+size, segmentProt(s.Prot)) {
			return false, nil
		}
		if s.Prot != image.ReadWrite {
			got := make([]byte, size)
			if _, err := t.h.ReadAt(got, int64(at)); err != nil {
				return false, err
			}
			if !bytes.Equal(got, want[off:off+size]) {
				return false, nil
			}
		}
		off += size
	}
	return true, nil
}

// stillHolds is holds for an image that was switched to: its imports were looked
// up then, and what the program has loaded since does not matter.
func (t *target) stillHolds(c *carrier, p *Patch) (bool, error) {
	if !c.is(p) || len(c.hunks) != len(p.File.Hunks) {
		return false, nil
	}
	imports, ok, err := t.standing(c, p.File)
	if err != nil || !ok {
		return false, err
	}
	return t.holds(c, p, imports)
}

// protected reports whether anonymous memory with exactly this protection
// covers [from, to).
func (t *target) protected(from, to uint64, p prot) bool {
	for from < to {
		m := find(t.maps, from)
		if m == nil || m.kind != kindAnon || m.prot != p {
			return false
		}
		from = m.end
	}
	return true
}

// segmentProt translates the protection of an image's segment.
func segmentProt(p image.Prot) prot {
	switch p {
	case image.ReadExec:
		return protRead | protExec
	case image.ReadWrite:
		return protRead | protWrite
	}
	return protRead
}

// siteBytes reads the jump-sized bytes at an address.
func (t *target) siteBytes(at uint64) (j jump, err error) {
	_, err = t.h.ReadAt(j[:], int64(at))
	return j, err
}

// sharer returns a process among others that has the same memory as this one,
// 0 when there is none. Its threads would run on while this one's stand still.
func (t *target) sharer(others []int) int {
	const kcmpVM = 1
	for _, pid := range others {
		if pid == t.h.pid {
			continue
		}
		r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(t.h.pid), uintptr(pid), kcmpVM, 0, 0, 0)
		if e == 0 && r == 0 {
			return pid
		}
	}
	return 0
}

// readSites reads what a stopped thread's process has at the sites, through the
// memory that the thread runs on now. out has one jump for each.
func readSites(tid int, sites []write, out []jump) error {
	const batch = 512 // the kernel takes 1,024 pieces at a time
	var remote [batch]unix.RemoteIovec
	for len(sites) > 0 {
		n := min(len(sites), batch)
		for i := range n {
			remote[i] = unix.RemoteIovec{Base: uintptr(sites[i].at), Len: image.JumpSize}
		}
		local := unix.Iovec{Base: (*byte)(unsafe.Pointer(&out[0])), Len: uint64(n) * image.JumpSize}
		got, _, e := unix.RawSyscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1,
			uintptr(unsafe.Pointer(&remote)), uintptr(n), 0)
		if e == unix.EFAULT || e == 0 && int(got) != n*image.JumpSize {
			return errNotMapped
		}
		if e != 0 {
			return injectError("the code of its functions cannot be read", e)
		}
		sites, out = sites[n:], out[n:]
	}
	return nil
}

// word reads the i-th 64-bit word.
func word(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
