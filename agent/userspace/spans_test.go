package userspace

import (
	"slices"
	"testing"

	"livemend.dev/livemend/patch/image"
)

// Only code counts as code: a number on a stack that looks like the address of
// an empty end of a page keeps no undo away.
func TestCodeOfImage(t *testing.T) {
	p := &Patch{File: &image.File{Segments: []image.Segment{
		{Prot: image.ReadOnly, Size: 4096, Data: []byte("text")},
		{Prot: image.ReadExec, Size: 8192, Data: make([]byte, 5000)},
		{Prot: image.ReadWrite, Size: 4096},
		{Prot: image.ReadExec, Size: 4096, Data: make([]byte, 16)},
	}}}
	c := newCarrier(p, 0x400000, 0)
	if got, want := c.code(), []span{{0x401000, 0x403000}, {0x404000, 0x405000}}; !slices.Equal(got, want) {
		t.Errorf("pages %x, want %x", got, want)
	}
	if got, want := c.codeOf(p), []span{{0x401000, 0x401000 + 5000}, {0x404000, 0x404010}}; !slices.Equal(got, want) {
		t.Errorf("code %x, want %x", got, want)
	}
}
