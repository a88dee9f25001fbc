package insn

import (
	"debug/elf"
	"errors"
	"os"
	"testing"
)

func TestDecode(t *testing.T) {
	code := []byte{
		0xf3, 0x0f, 0x1e, 0xfa, // 0: endbr64
		0x83, 0x3d, 1, 0, 0, 0, 5, // 4: cmp dword [rip+1], 5
		0x74, 0x05, // 11: je 18
		0x66, 0x90, // 13: pad
		0x0f, 0x1f, 0x00, // 15: pad
		0xe9, 0xe9, 0xff, 0xff, 0xff, // 18: jmp 0
		0xff, 0x25, 0, 0, 0, 0, // 23: jmp [rip]
		0xff, 0xd7, // 29: call rdi
		0xc3, // 31: ret
	}
	list, err := Decode(code)
	if err != nil {
		t.Fatal(err)
	}
	kinds := []Kind{Other, Other, Branch, Pad, Pad, Branch, Other, Call, Other}
	if len(list) != len(kinds) {
		t.Fatalf("%d instructions: %+v", len(list), list)
	}
	for i, k := range kinds {
		if list[i].Kind != k {
			t.Errorf("instruction %d: kind %d, want %d", i, list[i].Kind, k)
		}
	}
	if got := list[2].Target(code); got != 18 {
		t.Errorf("je goes to %d", got)
	}
	if got := list[5].Target(code); got != 0 {
		t.Errorf("jmp goes to %d", got)
	}
	if n, ok := FieldEnd(list, 6); !ok || n != 5 {
		t.Errorf("the operand of cmp ends %d bytes before the instruction (%v)", n, ok)
	}
	if _, ok := FieldEnd(list, len(code)); ok {
		t.Error("a field behind the code")
	}
}

func TestDecodeUnknown(t *testing.T) {
	for _, code := range [][]byte{
		{0x90, 0xc5, 0xfd, 0x6f, 0x05, 1, 0, 0, 0}, // vmovdqa ymm0, [rip+1]
		{0x90, 0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00}, // EVEX
		{0x90, 0xe8, 0, 0},                         // cut off
	} {
		var unknown *UnknownError
		if _, err := Decode(code); !errors.As(err, &unknown) || unknown.Off != 1 {
			t.Errorf("% x: %v", code, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0xe9, 0, 0, 0, 0, 0xc3})
	for _, code := range realCode(f) {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		list, err := Decode(code)
		at := 0
		for _, i := range list {
			if i.Off != at || i.Len <= 0 || i.RelOff+i.Rel > i.End() && i.Rel != 0 {
				t.Fatalf("%+v at %d", i, at)
			}
			if i.Rel != 0 {
				i.Target(code)
				if end, ok := FieldEnd(list, i.RelOff); !ok || end != i.End()-i.RelOff {
					t.Fatalf("the field of %+v ends %d bytes before its instruction, %v", i, end, ok)
				}
			}
			at = i.End()
		}
		if err == nil && at != len(code) {
			t.Fatalf("stopped at %d of %d", at, len(code))
		}
	})
}

// realCode is this test program's own code, in pieces.
func realCode(f *testing.F) (pieces [][]byte) {
	own, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	file, err := elf.Open(own)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	code, err := file.Section(".text").Data()
	if err != nil {
		f.Fatal(err)
	}
	const size, most = 512, 40
	for step := len(code) / most; len(pieces) < most && len(code) >= size; code = code[step:] {
		pieces = append(pieces, code[:size])
	}
	return pieces
}
