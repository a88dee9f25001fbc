package kernel

import (
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/relocatable"
)

// annexes returns for each function what the tables say of it that changes what
// it does: where it may fault and go on, what is fatal and what a warning, which
// jumps are switched and which code is replaced. Numbers of source lines do not
// count.
func annexes(o *object.Object, raw *relocatable.File, rawOf []*relocatable.Section) (map[string]string, error) {
	out := map[string]string{}
	for _, table := range []string{"__bug_table", "__ex_table", "__jump_table", ".altinstructions"} {
		for _, s := range raw.Sections {
			if s.Name != table {
				continue
			}
			list, err := entries(raw, s, carried[table])
			if err != nil {
				return nil, err
			}
			section := o.Sections[slices.Index(rawOf, s)]
			for _, e := range list {
				if f, text := annexe(o, raw, rawOf, section, e); f != "" {
					out[f] += text
				}
			}
		}
	}
	return out, nil
}

// lineAt and lineEnd are where an entry of the table of bugs has the number of a
// source line.
const lineAt, lineEnd = 8, 10

func annexe(o *object.Object, raw *relocatable.File, rawOf []*relocatable.Section, table *object.Section, e entry) (function, text string) {
	body := slices.Clone(table.Data[e.from:e.end])
	var b strings.Builder
	for n, r := range e.relocs {
		number := slices.Index(raw.Symbols, r.Symbol) + 1
		if number == 0 {
			continue
		}
		to, at, _ := o.TargetOf(table, object.Reloc{Off: r.Off, Type: r.Type, Symbol: number, Addend: r.Addend})
		switch {
		case to == nil:
			fmt.Fprintf(&b, " %s%+d", o.Symbols[number].Name, r.Addend)
		case to.Class == object.Merged && at >= 0 && uint64(at) < to.Size:
			fmt.Fprintf(&b, " %q", element(to, at))
		case to.Name == replacements && at >= 0 && uint64(at)+uint64(body[len(body)-1]) <= to.Size:
			end := uint64(at) + uint64(body[len(body)-1])
			fmt.Fprintf(&b, " %x", to.Data[at:end])
			for _, x := range to.Relocs {
				if x.Off >= uint64(at) && x.Off < end {
					fmt.Fprintf(&b, " %d:%s%+d", x.Off-uint64(at), o.Symbols[x.Symbol].Name, x.Addend)
				}
			}
		default:
			name := to.Name
			if f := o.FunctionAt(to, at); f != nil {
				name, at = f.Name, at-int64(o.Symbols[f.Symbol].Value)
			} else if i, ok := o.Covering(to, at); ok {
				name, at = plain(o.Symbols[i].Name), at-int64(o.Symbols[i].Value)
			}
			if n == 0 {
				function = name
			}
			fmt.Fprintf(&b, " %s%+d", name, at)
		}
	}
	if table.Name == "__bug_table" && len(body) >= lineEnd {
		clear(body[lineAt:lineEnd])
	}
	return function, fmt.Sprintf("%s %x%s\n", table.Name, body, b.String())
}

// compareAnnexes adds to the changed functions of a pair those of which only the
// tables changed.
func compareAnnexes(p *objdiff.Pair, was, is map[string]string) {
	for _, f := range p.After.Functions {
		if p.IsNew(f.Name) || p.IsChanged(f.Name) || was[f.Name] == is[f.Name] {
			continue
		}
		p.Changed = append(p.Changed, family(p, f)...)
	}
}
