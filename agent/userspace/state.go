package userspace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// The state area is a few read-only pages in front of every image in a target.
// It says which patch the image belongs to and what the redirected functions
// looked like, so that an agent that was restarted, and one that meets a forked
// child, knows what it sees and can undo it. It is only a claim: the target
// owns its memory, so whatever follows from it is checked against the code.
//
// Layout, little-endian: magic, SHA-256 of everything behind it, then sizes,
// addresses, the patch's identity, segments and hunks.
const (
	stateMagic    = "LIVEMEND"
	stateVersion  = 1
	stateSumAt    = 8
	stateBodyAt   = 40
	stateHead     = 320
	stateHunkSize = 32
	stateSegsAt   = 256
	stateIDAt     = 128
)

type jump [image.JumpSize]byte

// carrier is one image in a target, as its state area describes it.
type carrier struct {
	sha      [32]byte
	level    int64
	buildID  patch.BuildID
	bias     uint64
	image    uint64 // address of the first segment
	segments []image.Segment
	hunks    []image.Hunk // without names and hashes
}

// newCarrier describes p at an address.
func newCarrier(p *Patch, at, bias uint64) *carrier {
	return &carrier{
		sha: p.SHA256, level: p.Level, buildID: p.File.BuildID, bias: bias, image: at,
		segments: p.File.Segments, hunks: p.File.Hunks,
	}
}

// is reports whether the image says that it is p's. The same bytes may be
// published again at a higher level; that is another patch.
func (c *carrier) is(p *Patch) bool { return c.sha == p.SHA256 && c.level == p.Level }

// stateSize returns the bytes, whole pages, of the state area for n hunks.
func stateSize(n int) uint64 {
	return uint64(stateHead+n*stateHunkSize+pageSize-1) &^ (pageSize - 1)
}

// size returns the bytes of state area and segments.
func (c *carrier) size() uint64 {
	n := stateSize(len(c.hunks))
	for _, s := range c.segments {
		n += uint64(s.Size)
	}
	return n
}

// begin returns the address of the state area.
func (c *carrier) begin() uint64 { return c.image - stateSize(len(c.hunks)) }

// code returns the address ranges of the executable segments.
func (c *carrier) code() (ranges []span) {
	at := c.image
	for _, s := range c.segments {
		if s.Prot == image.ReadExec {
			ranges = append(ranges, span{at, at + uint64(s.Size)})
		}
		at += uint64(s.Size)
	}
	return ranges
}

// codeOf is code without the ends of pages that hold none. c must hold p's
// image. In a program at low addresses a page is as good as any number on a
// stack, and each that falls into it would make the program busy.
func (c *carrier) codeOf(p *Patch) []span {
	ranges, n := c.code(), 0
	for _, s := range p.File.Segments {
		if s.Prot == image.ReadExec {
			ranges[n].to = ranges[n].from + uint64(len(s.Data))
			n++
		}
	}
	return ranges
}

// site returns where the jump of a hunk lies in the target, and the jump.
func (c *carrier) site(h *image.Hunk) (uint64, jump, bool) {
	at := c.bias + h.Off + uint64(h.JumpOff())
	j, ok := encodeJump(at, c.image+uint64(h.New))
	return at, j, ok
}

// original returns the bytes at a hunk's site before any patch.
func original(h *image.Hunk) (j jump) {
	copy(j[:], h.Entry[h.JumpOff():])
	return j
}

// encode returns the state area.
func (c *carrier) encode() []byte {
	b := make([]byte, stateSize(len(c.hunks)))
	le := binary.LittleEndian
	copy(b, stateMagic)
	le.PutUint32(b[40:], stateVersion)
	le.PutUint32(b[44:], uint32(len(c.hunks)))
	le.PutUint32(b[48:], uint32(len(c.segments)))
	le.PutUint64(b[56:], c.image)
	le.PutUint64(b[64:], c.bias)
	le.PutUint64(b[72:], uint64(c.level))
	copy(b[80:], c.sha[:])
	b[112] = byte(len(c.buildID))
	copy(b[stateIDAt:stateSegsAt], c.buildID)
	for i, s := range c.segments {
		le.PutUint32(b[stateSegsAt+8*i:], s.Size)
		b[stateSegsAt+8*i+4] = byte(s.Prot)
	}
	for i := range c.hunks {
		h, rec := &c.hunks[i], b[stateHead+i*stateHunkSize:]
		le.PutUint64(rec, h.Off)
		le.PutUint32(rec[8:], h.Size)
		le.PutUint32(rec[12:], h.New)
		copy(rec[16:], h.Entry[:])
	}
	sum := sha256.Sum256(b[stateBodyAt:])
	copy(b[stateSumAt:], sum[:])
	return b
}

// stateLength returns the whole length of a state area from its first bytes, or
// 0 when they are not the beginning of one.
func stateLength(head []byte) uint64 {
	le := binary.LittleEndian
	if len(head) < stateHead || string(head[:len(stateMagic)]) != stateMagic || le.Uint32(head[40:]) != stateVersion {
		return 0
	}
	n := le.Uint32(head[44:])
	if n == 0 || n > image.MaxHunks {
		return 0
	}
	return stateSize(int(n))
}

// decodeState reads the state area found at an address. ok is false for
// anything but what encode wrote for that very address.
func decodeState(b []byte, at uint64) (c *carrier, ok bool) {
	size := stateLength(b)
	if size == 0 || uint64(len(b)) != size {
		return nil, false
	}
	if sum := sha256.Sum256(b[stateBodyAt:]); !bytes.Equal(sum[:], b[stateSumAt:stateBodyAt]) {
		return nil, false
	}
	le := binary.LittleEndian
	n, segs, idLen := int(le.Uint32(b[44:])), int(le.Uint32(b[48:])), int(b[112])
	if segs == 0 || segs > image.MaxSegments || idLen > stateSegsAt-stateIDAt {
		return nil, false
	}
	c = &carrier{
		buildID: patch.BuildID(b[stateIDAt : stateIDAt+idLen]),
		image:   le.Uint64(b[56:]),
		bias:    le.Uint64(b[64:]),
		level:   int64(le.Uint64(b[72:])),
	}
	copy(c.sha[:], b[80:])
	if c.image != at+size || c.image >= addressLimit || c.bias >= addressLimit || !c.buildID.Valid() {
		return nil, false
	}
	for i := range segs {
		c.segments = append(c.segments, image.Segment{
			Size: le.Uint32(b[stateSegsAt+8*i:]),
			Prot: image.Prot(b[stateSegsAt+8*i+4]),
		})
	}
	for i := range n {
		rec := b[stateHead+i*stateHunkSize:]
		h := image.Hunk{Name: "?", Off: le.Uint64(rec), Size: le.Uint32(rec[8:]), New: le.Uint32(rec[12:])}
		copy(h.Entry[:], rec[16:])
		c.hunks = append(c.hunks, h)
	}
	return c, c.sane()
}

// sane checks the rules of an image on what a state area keeps of it.
func (c *carrier) sane() bool {
	total := uint64(0)
	for _, s := range c.segments {
		total += uint64(s.Size)
		if s.Size == 0 || s.Size%pageSize != 0 || total > image.MaxSize {
			return false
		}
	}
	free := uint64(0)
	for i := range c.hunks {
		h := &c.hunks[i]
		if h.Off < free || h.Off >= image.MaxReach || h.Size > image.MaxSize ||
			h.Size < h.JumpOff()+image.JumpSize || uint64(h.New) >= total {
			return false
		}
		free = h.Off + uint64(h.Size)
	}
	return true
}
