package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"livemend.dev/livemend/patch"
	"pgregory.net/rapid"
)

const testID = patch.BuildID("00112233445566778899aabbccddeeff00112233")

// sample is a small image with one of everything.
func sample() *File {
	code := bytes.Repeat([]byte{0x90}, 64)
	return &File{
		BuildID: testID,
		Arch:    "amd64",
		Segments: []Segment{
			{Prot: ReadExec, Size: PageSize, Data: code},
			{Prot: ReadOnly, Size: PageSize, Data: []byte("text\x00")},
			{Prot: ReadWrite, Size: 2 * PageSize},
		},
		Relocs: []Reloc{
			{Off: 8, Base: Image, Form: Rel32, Addend: PageSize - 4},
			{Off: 12, Base: Library, Form: Rel32, Addend: 0x1000 - 4},
			{Off: PageSize + 8, Base: Library, Form: Abs64, Addend: 0x2000},
			{Off: 2 * PageSize, Base: Image, Form: Abs64, Addend: PageSize},
		},
		Hunks: []Hunk{
			{Name: "first", Off: 0x1000, Size: 5, OldHash: sha256.Sum256([]byte("a")), Entry: [EntrySize]byte{1, 2, 3, 4, 5}, New: 0},
			{Name: "second", Off: 0x1005, Size: 40, Entry: [EntrySize]byte{0xf3, 0x0f, 0x1e, 0xfa, 9, 9}, New: 32},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	b, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genFile(t)
		b, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := Decode(b[:cut]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut at %d of %d: %v", cut, len(b), err)
		}
		if _, err := Decode(append(b, 0)); !errors.Is(err, ErrFormat) {
			t.Fatalf("one byte more: %v", err)
		}
	})
}

func genFile(t *rapid.T) *File {
	f := &File{BuildID: testID, Arch: "amd64"}
	for range rapid.IntRange(1, MaxSegments).Draw(t, "segments") {
		size := PageSize * rapid.Uint32Range(1, 3).Draw(t, "pages")
		f.Segments = append(f.Segments, Segment{
			Prot: Prot(rapid.IntRange(1, 3).Draw(t, "prot")),
			Size: size,
			Data: rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "data"),
		})
		if s := &f.Segments[len(f.Segments)-1]; len(s.Data) == 0 {
			s.Data = nil
		}
	}
	f.Segments[0].Prot, f.Segments[0].Data = ReadExec, []byte{0x90, 0xc3}
	for off := uint32(0); ; {
		off += rapid.Uint32Range(0, 2*PageSize).Draw(t, "gap")
		if off+8 > f.Size() {
			break
		}
		r := Reloc{
			Off: off, Base: Base(rapid.IntRange(1, 2).Draw(t, "base")), Form: Form(rapid.IntRange(1, 2).Draw(t, "form")),
			Addend: rapid.Int64Range(-MaxReach+1, MaxReach-1).Draw(t, "addend"),
		}
		if uint64(off%PageSize)+r.Form.width() <= PageSize {
			f.Relocs = append(f.Relocs, r)
		}
		off += 8
	}
	at := uint64(0)
	for range rapid.IntRange(1, 5).Draw(t, "hunks") {
		at += rapid.Uint64Range(0, 1000).Draw(t, "space")
		h := Hunk{
			Name: rapid.StringMatching(`[a-z_.$][a-zA-Z0-9_.$]{0,20}`).Draw(t, "name"),
			Off:  at, Size: rapid.Uint32Range(9, 400).Draw(t, "size"), New: rapid.Uint32Range(0, 1).Draw(t, "new"),
		}
		copy(h.Entry[:9], rapid.SliceOfN(rapid.Byte(), 9, 9).Draw(t, "entry"))
		at += uint64(h.Size)
		f.Hunks = append(f.Hunks, h)
	}
	return f
}

func TestCheckRefuses(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(*File)
	}{
		{"other architecture", func(f *File) { f.Arch = "arm64" }},
		{"upper-case build-id", func(f *File) { f.BuildID = patch.BuildID(strings.ToUpper(string(f.BuildID))) }},
		{"no segment", func(f *File) { f.Segments = nil }},
		{"too many segments", func(f *File) {
			for len(f.Segments) <= MaxSegments {
				f.Segments = append(f.Segments, Segment{Prot: ReadOnly, Size: PageSize})
			}
		}},
		{"protection zero", func(f *File) { f.Segments[1].Prot = 0 }},
		{"protection of mmap's W+X", func(f *File) { f.Segments[1].Prot = 7 }},
		{"empty segment", func(f *File) { f.Segments[2].Size = 0 }},
		{"part of a page", func(f *File) { f.Segments[2].Size = PageSize + 1 }},
		{"more data than memory", func(f *File) { f.Segments[0].Data = make([]byte, PageSize+1) }},
		{"too large", func(f *File) { f.Segments[2].Size = MaxSize }},
		{"relocation out of order", func(f *File) { slices.Reverse(f.Relocs) }},
		{"relocations overlap", func(f *File) { f.Relocs[1].Off = 11 }},
		{"relocation over a segment's edge", func(f *File) { f.Relocs[1].Off = PageSize - 2 }},
		{"relocation behind the image", func(f *File) { f.Relocs[3].Off = 4 * PageSize }},
		{"relocation at the end of 32 bits", func(f *File) { f.Relocs[3].Off = 1<<32 - 1 }},
		{"unknown form", func(f *File) { f.Relocs[0].Form = 3 }},
		{"unknown base", func(f *File) { f.Relocs[0].Base = 0 }},
		{"addend out of reach", func(f *File) { f.Relocs[0].Addend = MaxReach }},
		{"no function", func(f *File) { f.Hunks = nil }},
		{"nameless function", func(f *File) { f.Hunks[0].Name = "" }},
		{"name with a line break", func(f *File) { f.Hunks[0].Name = "a\nb" }},
		{"name too long", func(f *File) { f.Hunks[0].Name = strings.Repeat("x", MaxNameBytes+1) }},
		{"functions overlap", func(f *File) { f.Hunks[1].Off = 0x1004 }},
		{"functions out of order", func(f *File) { f.Hunks[1].Off = 0x10 }},
		{"function wraps", func(f *File) { f.Hunks[1].Off = 1<<64 - 1 }},
		{"too small for a jump", func(f *File) { f.Hunks[0].Size, f.Hunks[0].Entry[4] = 4, 0 }},
		{"too small behind endbr64", func(f *File) { f.Hunks[1].Size = 8 }},
		{"entry bytes behind the end", func(f *File) { f.Hunks[0].Entry[5] = 1 }},
		{"new code in read-only data", func(f *File) { f.Hunks[0].New = PageSize }},
		{"new code behind the code", func(f *File) { f.Hunks[0].New = 64 }},
		{"new code behind the image", func(f *File) { f.Hunks[0].New = 1 << 31 }},
	}
	if err := sample().Check(); err != nil {
		t.Fatalf("the sample itself: %v", err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := sample()
			c.spoil(f)
			if err := f.Check(); !errors.Is(err, ErrRule) {
				t.Errorf("Check: %v", err)
			}
			if _, err := Encode(f); !errors.Is(err, ErrRule) {
				t.Errorf("Encode: %v", err)
			}
		})
	}
}

func TestDecodeAppliesCheck(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	prot := bytes.Index(b, []byte(testID)) + len(testID) + 4
	b[prot] = 4
	if _, err := Decode(b); !errors.Is(err, ErrRule) {
		t.Fatal(err)
	}
}

func TestDecodeLyingCount(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	segments := bytes.Index(b, []byte(testID)) + len(testID)
	binary.LittleEndian.PutUint32(b[segments:], 1<<31)
	if _, err := Decode(b); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
}

func TestJumpOff(t *testing.T) {
	f := sample()
	if got := f.Hunks[0].JumpOff(); got != 0 {
		t.Errorf("plain function: %d", got)
	}
	if got := f.Hunks[1].JumpOff(); got != 4 {
		t.Errorf("endbr64: %d", got)
	}
}

func TestPlace(t *testing.T) {
	f := sample()
	const at, bias = 0x7f0000010000, 0x7f0000000000
	out, err := f.Place(at, bias)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != 4*PageSize || string(out[PageSize:PageSize+4]) != "text" {
		t.Fatalf("%d bytes", len(out))
	}
	follow := func(off int) uint64 { // target of a rel32 field that ends an instruction
		return at + uint64(off) + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(out[off:]))))
	}
	if got := follow(8); got != at+PageSize {
		t.Errorf("image-relative: %#x", got)
	}
	if got := follow(12); got != bias+0x1000 {
		t.Errorf("library-relative: %#x", got)
	}
	if got := binary.LittleEndian.Uint64(out[PageSize+8:]); got != bias+0x2000 {
		t.Errorf("library pointer: %#x", got)
	}
	if got := binary.LittleEndian.Uint64(out[2*PageSize:]); got != at+PageSize {
		t.Errorf("image pointer: %#x", got)
	}
	if _, err := f.Place(0x7ffff7000000, 0x7ffff7100000); err != nil {
		t.Errorf("a process without address randomisation: %v", err)
	}
	for _, bad := range []struct{ at, bias uint64 }{
		{at, at + 1<<32},     // too far
		{at, at - 1<<32},     // too far, other side
		{at + 1, bias},       // not a page
		{1 << 47, 1<<47 - 1}, // kernel space
		{^uint64(0) &^ 4095, bias},
	} {
		if _, err := f.Place(bad.at, bad.bias); !errors.Is(err, ErrPlace) {
			t.Errorf("Place(%#x, %#x): %v", bad.at, bad.bias, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(file)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("a decoded image has two encodings: %v", err)
		}
		if _, err := file.Place(0x7f0000010000, 0x7f0000000000); err != nil && !errors.Is(err, ErrPlace) {
			t.Fatal(err)
		}
	})
}
