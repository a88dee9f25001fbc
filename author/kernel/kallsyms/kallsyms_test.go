package kallsyms_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author/kernel/kallsyms"
	"livemend.dev/livemend/internal/guest"
)

// symbols makes a list with names of both lengths, and with the offsets of
// variables for each processor in front.
func symbols() []kallsyms.Symbol {
	list := []kallsyms.Symbol{{Name: "percpu", Type: 'A', Addr: 0x40}}
	for i := range 700 {
		list = append(list, kallsyms.Symbol{Name: fmt.Sprintf("f%d", i), Type: "tT"[i%2], Addr: 0xffffffff81000000 + uint64(i)*16})
	}
	list[300].Name = strings.Repeat("long", 50)
	return list
}

// table writes a table as kernels have it, with every character as a token of
// itself; later kernels have the addresses behind the tokens.
func table(list []kallsyms.Symbol, later bool) []byte {
	le := binary.LittleEndian
	pad := func(b []byte, to int) []byte {
		for len(b)%to != 0 {
			b = append(b, 0)
		}
		return b
	}
	const base = 0xffffffff81000000
	var offsets []byte
	for _, s := range list {
		off := uint32(s.Addr)
		if s.Addr >= base {
			off = uint32(-1 - int32(s.Addr-base))
		}
		offsets = le.AppendUint32(offsets, off)
	}
	offsets = le.AppendUint64(pad(offsets, 8), base)
	var names, markers []byte
	for i, s := range list {
		if i%256 == 0 {
			markers = le.AppendUint32(markers, uint32(len(names)))
		}
		text := string(s.Type) + s.Name
		if len(text) >= 0x80 {
			names = append(names, byte(len(text))|0x80, byte(len(text)>>7))
		} else {
			names = append(names, byte(len(text)))
		}
		names = append(names, text...)
	}
	var tokens, index []byte
	for i := range 256 {
		index = le.AppendUint16(index, uint16(len(tokens)))
		if i > ' ' && i < 0x7f {
			tokens = append(tokens, byte(i))
		}
		tokens = append(tokens, 0)
	}
	b := bytes.Repeat([]byte{0xaa}, 4096)
	if !later {
		b = append(b, offsets...)
	}
	b = pad(le.AppendUint32(b, uint32(len(list))), 8)
	b = pad(append(b, names...), 8)
	b = pad(append(b, markers...), 8)
	b = pad(append(b, tokens...), 8)
	b = append(b, index...)
	if later {
		b = append(b, offsets...)
	}
	return append(b, bytes.Repeat([]byte{0x55}, 4096)...)
}

func TestRead(t *testing.T) {
	want := symbols()
	for _, later := range []bool{false, true} {
		got, err := kallsyms.Read(table(want, later))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("later %v: %d symbols, %v, want %d", later, len(got), err, len(want))
		}
	}
}

// A table that is damaged is an error, or the damage is within one name or
// address; it is never read from a wrong place.
func TestDamaged(t *testing.T) {
	want := symbols()
	whole := table(want, false)
	for at := 4096; at < len(whole)-4096; at += 7 {
		b := bytes.Clone(whole)
		b[at] ^= 0x41
		got, err := kallsyms.Read(b)
		if err != nil {
			if !errors.Is(err, kallsyms.ErrTable) {
				t.Fatalf("byte %d: %v", at, err)
			}
			continue
		}
		// One token may stand in every name, so names may differ more than addresses.
		differ := 0
		for i := range min(len(got), len(want)) {
			if got[i].Addr != want[i].Addr {
				differ++
			}
		}
		if len(got) != len(want) || differ > 1 && differ < len(want)-1 {
			t.Fatalf("byte %d: %d symbols, %d at other addresses", at, len(got), differ)
		}
	}
	for _, n := range []int{0, 1, 4096, len(whole) / 2} {
		if _, err := kallsyms.Read(whole[:n]); !errors.Is(err, kallsyms.ErrTable) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// What is read from the images of real kernels is what these kernels tell when
// they run.
func TestRealKernels(t *testing.T) {
	for _, k := range []guest.Kernel{guest.Debian61, guest.Debian612} {
		t.Run(k.Release, func(t *testing.T) {
			g := guest.Boot(t, guest.Config{Kernel: k, Append: "nokaslr"})
			g.Put("/proc/sys/kernel/kptr_restrict", []byte("0"))
			told, err := g.Get("/proc/kallsyms")
			if err != nil {
				t.Fatal(err)
			}
			dir, err := k.Unpack(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			image, err := os.ReadFile(filepath.Join(dir, "vmlinux"))
			if err != nil {
				t.Fatal(err)
			}
			list, err := kallsyms.Read(image)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(bytes.NewReader(told))
			n := 0
			for ; lines.Scan(); n++ {
				if strings.Contains(lines.Text(), "\t[") {
					break // from here on modules
				}
				if n == len(list) {
					t.Fatalf("the kernel tells more than %d symbols: %s", n, lines.Text())
				}
				s := list[n]
				if want := fmt.Sprintf("%016x %c %s", s.Addr, s.Type, s.Name); lines.Text() != want {
					t.Fatalf("symbol %d is read as %q, and the kernel tells %q", n, want, lines.Text())
				}
			}
			if n != len(list) {
				t.Errorf("%d symbols are read, and the kernel tells %d", len(list), n)
			}
			t.Logf("%d symbols", n)
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(table(symbols(), false))
	f.Add(table(symbols(), true))
	f.Fuzz(func(t *testing.T, image []byte) {
		if _, err := kallsyms.Read(image); err != nil && !errors.Is(err, kallsyms.ErrTable) {
			t.Errorf("an error of another kind: %v", err)
		}
	})
}
