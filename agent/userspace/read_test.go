package userspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

func TestParseMaps(t *testing.T) {
	text := "00400000-00401000 r--p 00000000 fe:01 77                         /bin/x\n" +
		"00401000-00402000 r-xp 00001000 fe:01 77                         /bin/x\n" +
		"00602000-00603000 rw-p 00000000 00:00 0                          [heap]\n" +
		"7f0000000000-7f0000001000 rwxs 00000000 00:05 9 /tmp/a b [vdso] (deleted)\n" +
		"7f0000002000-7f0000003000 r--p 00000000 00:00 0 \n" +
		"7f0000003000-7f0000004000 r--p 00000000 00:00 0 [anon:glibc: malloc]\n" +
		"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n" +
		"7ffc00100000-7ffc00102000 r-xp 00000000 00:00 0                          [vdso]\n" +
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
	got, err := parseMaps([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	file := fileKey{0xfe<<32 | 1, 77}
	want := []mapping{
		{0x400000, 0x401000, 0, protRead, kindFile, file},
		{0x401000, 0x402000, 0x1000, protRead | protExec, kindFile, file},
		{0x602000, 0x603000, 0, protRead | protWrite, kindHeap, fileKey{}},
		{0x7f0000000000, 0x7f0000001000, 0, protRead | protWrite | protExec | protShared, kindFile, fileKey{5, 9}},
		{0x7f0000002000, 0x7f0000003000, 0, protRead, kindAnon, fileKey{}},
		{0x7f0000003000, 0x7f0000004000, 0, protRead, kindAnon, fileKey{}},
		{0x7ffc00000000, 0x7ffc00021000, 0, protRead | protWrite, kindStack, fileKey{}},
		{0x7ffc00100000, 0x7ffc00102000, 0, protRead | protExec, kindVDSO, fileKey{}},
		{0xffffffffff600000, 0xffffffffff601000, 0, protExec, kindOther, fileKey{}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mapping{}, fileKey{})); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{
		"nonsense\n",
		"00400000-00400000 r--p 00000000 fe:01 77 /x\n",          // empty
		"00400000-00401000 r--p 00000000 fe:01 \n",               // no inode
		"00400000-00401000 r--p 00000000 fe01 77 /x\n",           // no device
		"11111111111111111-2 r--p 00000000 fe:01 77 /x\n",        // too long a number
		text + "00400000-00401000 r--p 00000000 fe:01 77 /bin/x", // descending
	} {
		if _, err := parseMaps([]byte(bad), nil); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseMaps(f *testing.F) {
	own, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Fuzz(func(t *testing.T, text []byte) {
		ms, err := parseMaps(text, nil)
		if err != nil {
			return
		}
		for i, m := range ms {
			if m.start >= m.end || i > 0 && m.start < ms[i-1].end {
				t.Fatalf("mappings out of order: %+v", ms)
			}
			if got := find(ms, m.start); got == nil || got.start != m.start {
				t.Fatalf("the mapping at %x is not found", m.start)
			}
			if got := find(ms, m.end-1); got == nil || got.start != m.start {
				t.Fatalf("the mapping that ends at %x is not found", m.end)
			}
		}
	})
}

func TestParseStat(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n"
	for _, test := range []struct{ in, comm string }{
		{"7 (cat)" + tail, "cat"},
		{"7 (a) b (c)" + tail, "a) b (c"},
		{"7 (\x1b[2Jx\n)" + tail, "?[2Jx?"},
	} {
		comm, start, err := parseStat(test.in)
		if err != nil || comm != test.comm || start != 4242 {
			t.Errorf("%q: %q, %d, %v", test.in, comm, start, err)
		}
	}
	for _, bad := range []string{"", "7 cat S", ")(", "7 (cat) S 1 2", "7 (cat)" + " x x x x x x x x x x x x x x x x x x x x x"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// Wherever the library lies, the place that is found is free, has a free page
// on both sides, and every part of it is within reach of every part of the
// library.
func TestHole(t *testing.T) {
	const page = 4096
	rapid.Check(t, func(t *rapid.T) {
		var ms []mapping
		at := uint64(rapid.IntRange(16, 1<<20).Draw(t, "first")) * page
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			size := uint64(rapid.IntRange(1, 1<<10).Draw(t, "size")) * page
			ms = append(ms, mapping{start: at, end: at + size, kind: rapid.SampledFrom([]kind{kindAnon, kindFile, kindHeap}).Draw(t, "kind")})
			at += size + uint64(rapid.SampledFrom([]int{0, 1, 2, 3, 50, 1 << 10, 1 << 18, 1 << 20}).Draw(t, "gap"))*page
		}
		lib := ms[rapid.IntRange(0, len(ms)-1).Draw(t, "lib")]
		size := uint64(rapid.IntRange(1, 64).Draw(t, "image")) * page
		got, ok := hole(ms, lib.start, lib.end, size)
		if !ok {
			return
		}
		if got%page != 0 {
			t.Fatalf("%x is not a page", got)
		}
		for _, m := range ms {
			if got-page < m.end && m.start < got+size+page {
				t.Fatalf("%x+%x touches %x-%x", got, size, m.start, m.end)
			}
		}
		if max(got+size, lib.end)-min(got, lib.start) >= 1<<31 {
			t.Fatalf("%x is too far from %x", got, lib.start)
		}
	})
	lib := mapping{start: 0x7f0000000000, end: 0x7f0000100000}
	if got, ok := hole([]mapping{lib}, lib.start, lib.end, page); !ok || got != lib.start-2*page && got != lib.end+page {
		t.Errorf("hole at %x, %v; want it next to the library", got, ok)
	}
	heap := []mapping{{start: 0x10000000, end: 0x10100000}, {start: 0x10200000, end: 0x10300000, kind: kindHeap}}
	if got, ok := hole(heap, 0x10000000, 0x10100000, 0x200000); !ok || got > 0x10000000 {
		t.Errorf("hole at %x, %v; want it below, away from the heap", got, ok)
	}
}

// goodELF is a small file with everything that the reader looks at.
func goodELF() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x200)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 3)
	le.PutUint16(b[18:], elfMachineAMD64)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], elfPhdrSize)
	le.PutUint16(b[56:], 2)
	load, note := b[64:], b[64+elfPhdrSize:]
	le.PutUint32(load, segLoad)
	le.PutUint32(load[4:], segExec|4)
	le.PutUint64(load[8:], 0x1000)
	le.PutUint64(load[16:], 0x3000)
	le.PutUint64(load[32:], 0x2000)
	le.PutUint64(load[40:], 0x2000)
	le.PutUint32(note, segNote)
	le.PutUint64(note[8:], 0x180)
	le.PutUint64(note[32:], 36)
	le.PutUint64(note[48:], 4)
	n := b[0x180:]
	le.PutUint32(n, 4)
	le.PutUint32(n[4:], 20)
	le.PutUint32(n[8:], noteBuildID)
	copy(n[12:], "GNU\x00")
	for i := range 20 {
		n[16+i] = byte(i)
	}
	return b
}

func TestReadObject(t *testing.T) {
	o, err := readObject(bytes.NewReader(goodELF()))
	if err != nil {
		t.Fatal(err)
	}
	if o.buildID != "000102030405060708090a0b0c0d0e0f10111213" || o.arch != "amd64" || o.low != 0x3000 || o.high != 0x5000 {
		t.Errorf("%+v", o)
	}
	if bias, ok := o.bias(0x7f0000004000, 0x2000); !ok || bias != 0x7f0000000000 {
		t.Errorf("bias %x, %v", bias, ok)
	}
	if _, ok := o.bias(0x7f0000004000, 0x4000); ok {
		t.Error("an offset outside of all segments has a bias")
	}
	for name, change := range map[string]func(b []byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"short":              func(b []byte) []byte { return b[:70] },
		"magic":              func(b []byte) []byte { b[1] = 'e'; return b },
		"32-bit":             func(b []byte) []byte { b[4] = 1; return b },
		"big-endian":         func(b []byte) []byte { b[5] = 2; return b },
		"relocatable":        func(b []byte) []byte { b[16] = 1; return b },
		"header size":        func(b []byte) []byte { b[54]++; return b },
		"no headers":         func(b []byte) []byte { b[56] = 0; return b },
		"too many headers":   func(b []byte) []byte { b[57] = 1; return b },
		"headers far away":   func(b []byte) []byte { b[38] = 0xff; return b },
		"address wraps":      func(b []byte) []byte { b[64+16+7] = 0xff; return b },
		"size wraps":         func(b []byte) []byte { b[64+40+7] = 0xff; return b },
		"file above memory":  func(b []byte) []byte { b[64+32+2] = 1; return b },
		"misaligned":         func(b []byte) []byte { b[64+8] = 1; return b },
		"huge note":          func(b []byte) []byte { b[64+elfPhdrSize+32+3] = 1; return b },
		"note behind end":    func(b []byte) []byte { b[64+elfPhdrSize+8+3] = 1; return b },
		"name size wraps":    func(b []byte) []byte { b[0x183] = 0xff; return b },
		"id size wraps":      func(b []byte) []byte { b[0x187] = 0xff; return b },
		"build-id too short": func(b []byte) []byte { b[0x184] = 4; return b },
		"no build-id":        func(b []byte) []byte { b[0x188] = 9; return b },
		"no load":            func(b []byte) []byte { b[64] = 0; return b },
	} {
		if _, err := readObject(bytes.NewReader(change(goodELF()))); !errors.Is(err, errNotELF) {
			t.Errorf("%s: error %v, want errNotELF", name, err)
		}
	}
}

func FuzzReadObject(f *testing.F) {
	f.Add(goodELF())
	own, err := os.ReadFile("/bin/true")
	if err == nil && len(own) < 1<<16 {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := readObject(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, errNotELF) {
				t.Fatalf("error %v, want errNotELF", err)
			}
			return
		}
		if !o.buildID.Valid() || o.high > addressLimit || len(o.loads) == 0 {
			t.Fatalf("%+v was accepted", o)
		}
		for _, l := range o.loads {
			if bias, ok := o.bias(1<<40, l.off&^(pageSize-1)); ok && bias > 1<<40 {
				t.Fatalf("bias %x", bias)
			}
		}
	})
}

func sampleCarrier() *carrier {
	return &carrier{
		sha: [32]byte{1, 2, 3}, level: 7, buildID: patch.BuildID("00112233445566778899"), bias: 0x7f0000000000,
		image:    0x7f0000100000,
		segments: []image.Segment{{Prot: image.ReadExec, Size: 8192}, {Prot: image.ReadWrite, Size: 4096}},
		hunks: []image.Hunk{
			{Name: "?", Off: 0x1000, Size: 16, New: 32, Entry: [16]byte{0xf3, 0x0f, 0x1e, 0xfa, 1, 2, 3, 4, 5}},
			{Name: "?", Off: 0x2000, Size: 5, New: 64, Entry: [16]byte{9, 8, 7, 6, 5}},
		},
	}
}

func TestState(t *testing.T) {
	c := sampleCarrier()
	b := c.encode()
	got, ok := decodeState(b, c.begin())
	if !ok {
		t.Fatal("what was encoded is not decoded")
	}
	if d := cmp.Diff(c, got, cmp.AllowUnexported(carrier{})); d != "" {
		t.Error(d)
	}
	if _, ok := decodeState(b, c.begin()+pageSize); ok {
		t.Error("a copy at another address was accepted")
	}
	for i := range 8 * (stateHead + 2*stateHunkSize) {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if _, ok := decodeState(bad, c.begin()); ok {
			t.Fatalf("accepted with bit %d of byte %d flipped", i%8, i/8)
		}
	}
	for name, change := range map[string]func(c *carrier){
		"overlap":        func(c *carrier) { c.hunks[1].Off = c.hunks[0].Off + 3 },
		"out of reach":   func(c *carrier) { c.hunks[1].Off = image.MaxReach },
		"small":          func(c *carrier) { c.hunks[0].Size = 8 },
		"new code":       func(c *carrier) { c.hunks[0].New = 1 << 20 },
		"empty segment":  func(c *carrier) { c.segments[0].Size = 0 },
		"odd segment":    func(c *carrier) { c.segments[0].Size = 100 },
		"large segment":  func(c *carrier) { c.segments[0].Size = 1 << 30 },
		"build-id":       func(c *carrier) { c.buildID = "xyz" },
		"bias too large": func(c *carrier) { c.bias = 1 << 50 },
	} {
		c := sampleCarrier()
		change(c)
		if _, ok := decodeState(c.encode(), c.begin()); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(sampleCarrier().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := decodeState(b, sampleCarrier().begin()); ok && !bytes.Equal(c.encode(), b) {
			t.Fatal("what was decoded encodes to something else")
		}
	})
}

func TestInSpans(t *testing.T) {
	spans := []span{{10, 20}, {30, 31}, {40, 50}}
	for addr := range uint64(60) {
		want := addr >= 10 && addr < 20 || addr == 30 || addr >= 40 && addr < 50
		if got := inSpans(spans, addr); got != want {
			t.Errorf("%d: %v, want %v", addr, got, want)
		}
	}
	if inSpans(nil, 5) {
		t.Error("an address lies in no span")
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 42 1 1")
	f.Add("Name:\tx\nState:\tS (sleeping)\nPPid:\t1\nTracerPid:\t0\nSigIgn:\t0000000000000010\nSeccomp:\t2\n")
	f.Fuzz(func(t *testing.T, text string) {
		if comm, _, err := parseStat(text); err == nil && printable(comm) != comm {
			t.Errorf("a name that is more than text: %q", comm)
		}
		if st, err := parseStatus(text); err == nil && st.seccomp && !strings.Contains(text, "Seccomp") {
			t.Error("a filter by nobody's word")
		}
	})
}
