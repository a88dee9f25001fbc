package kernel

import (
	"debug/elf"
	"testing"

	"livemend.dev/livemend/author/relocatable"
)

// Entries are told by where their relocations are; what is not regular is not
// guessed at.
func TestEntries(t *testing.T) {
	text := &relocatable.Section{Name: ".text", Type: elf.SHT_PROGBITS}
	y := &relocatable.Symbol{Section: text}
	for _, c := range []struct {
		name    string
		size    uint64
		relocs  int
		offsets []uint64
		want    []uint64 // where entries start and the last one ends; nil for an error
	}{
		{"two of twelve bytes", 24, 2, []uint64{0, 4, 12, 16}, []uint64{0, 12, 24}},
		{"one", 14, 2, []uint64{0, 4}, []uint64{0, 14}},
		{"none", 0, 2, nil, []uint64{}},
		{"a short last one", 26, 1, []uint64{0, 16}, []uint64{0, 16, 26}},
		{"in another order", 24, 2, []uint64{16, 12, 4, 0}, []uint64{0, 12, 24}},
		{"half an entry", 16, 2, []uint64{0, 4, 12}, nil},
		{"another length", 40, 2, []uint64{0, 4, 12, 16, 26, 30}, nil},
		{"another place", 24, 2, []uint64{0, 4, 12, 18}, nil},
		{"not from the start", 24, 1, []uint64{4, 16}, nil},
		{"a long last one", 40, 1, []uint64{0, 12}, nil},
	} {
		s := &relocatable.Section{Name: "table", Type: elf.SHT_PROGBITS, Size: c.size, Data: make([]byte, c.size)}
		r := &relocatable.Section{Type: elf.SHT_RELA, Target: s}
		for _, off := range c.offsets {
			r.Relocs = append(r.Relocs, relocatable.Reloc{Off: off, Symbol: y})
		}
		list, err := entries(&relocatable.File{Sections: []*relocatable.Section{text, s, r}}, s, c.relocs)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: no error, %v", c.name, list)
			}
			continue
		}
		var got []uint64
		for _, e := range list {
			got = append(got, e.from)
		}
		if len(list) > 0 {
			got = append(got, list[len(list)-1].end)
		}
		ok := err == nil && len(got) == len(c.want)
		for i := range got {
			ok = ok && got[i] == c.want[i]
		}
		if !ok {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}
