package image

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzPlace holds what the applier relies on for every image that is accepted:
// the placed bytes are the segments but for the relocations' fields, and every
// function that is redirected has room for the jump.
func FuzzPlace(f *testing.F) {
	for _, file := range []*File{sample(), {BuildID: testID, Arch: "amd64",
		Segments: []Segment{{Prot: ReadExec, Size: PageSize, Data: []byte{0xc3}}},
		Hunks:    []Hunk{{Name: "f", Size: JumpSize}}}} {
		b, err := Encode(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint64(0x7f0000010000))
		f.Add(b, uint64(1<<47-1<<25))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint64) {
		file, err := Decode(data)
		if err != nil {
			return
		}
		for i := range file.Hunks {
			h := &file.Hunks[i]
			if h.JumpOff()+JumpSize > h.Size || !file.isCode(h.New) {
				t.Fatalf("%+v has no room, or leads nowhere", h)
			}
		}
		out, err := file.Place(at, 0x7f0000000000, make([]uint64, len(file.Imports))...)
		if err != nil {
			if !errors.Is(err, ErrPlace) {
				t.Fatal(err)
			}
			return
		}
		var want []byte
		for _, s := range file.Segments {
			want = append(want, s.Data...)
			want = append(want, make([]byte, int(s.Size)-len(s.Data))...)
		}
		if len(out) != len(want) {
			t.Fatalf("%d bytes placed, want %d", len(out), len(want))
		}
		for _, r := range file.Relocs {
			for i := range r.Form.width() {
				out[uint64(r.Off)+i], want[uint64(r.Off)+i] = 0, 0
			}
		}
		if !bytes.Equal(out, want) {
			t.Fatal("placing changed more than the fields")
		}
	})
}
