// Package klp makes a loadable livepatch module of a plain one: references to
// symbols that the kernel does not export become relocations that the kernel's
// livepatch code fills, in the form that the kernel's documentation of livepatch
// modules describes.
//
// The package is pure. Which symbol a reference means, and where it stands among
// symbols of the same name, is the caller's to know.
package klp

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/relocatable"
)

// Numbers of the kernel's format.
const (
	SectionIndex = elf.SectionIndex(0xff20)    // SHN_LIVEPATCH: the symbol is looked up by the livepatch code
	RelaFlag     = elf.SectionFlag(0x00100000) // SHF_RELA_LIVEPATCH: so are the relocations
	Vmlinux      = "vmlinux"                   // what the kernel itself is called among objects
)

// Limits of the kernel on names (MODULE_NAME_LEN and the oldest KSYM_NAME_LEN).
const (
	MaxObject = 55
	MaxName   = 127
)

// ErrConvert is wrapped by the errors of this package.
var ErrConvert = errors.New("cannot make a livepatch module")

// Ref is the symbol that a reference means.
type Ref struct {
	Object   string // that defines it: Vmlinux or the name of a module
	Name     string
	Position uint   // from 1 among symbols of this name in the object's table; 0 when there is one only
	For      string // patched module with whose code it is resolved; empty for Vmlinux
}

func (r Ref) owner() string {
	if r.Object == Vmlinux || r.For == "" {
		return r.Object
	}
	return r.For
}

func (r Ref) check() error {
	for _, name := range []string{r.Object, r.owner()} {
		// The kernel reads the name up to the next dot.
		if name == "" || len(name) > MaxObject || strings.ContainsAny(name, ".,") {
			return fmt.Errorf("%w: %q is no name of a kernel object", ErrConvert, name)
		}
	}
	if r.Name == "" || len(r.Name) > MaxName || strings.Contains(r.Name, ",") {
		return fmt.Errorf("%w: %q is no name that the kernel could look up", ErrConvert, r.Name)
	}
	return nil
}

// Convert changes f. refs says by the names of undefined symbols what they mean;
// what is not in it stays as it is, for the kernel's module loader. A name in
// refs that f does not need is an error: it was meant for another module.
func Convert(f *relocatable.File, refs map[string]Ref) error {
	owners := map[*relocatable.Symbol]string{}
	found := map[string]bool{}
	for _, y := range f.Symbols {
		ref, ok := refs[y.Name]
		if !ok || !y.Undefined() || y.Name == "" {
			continue
		}
		if err := ref.check(); err != nil {
			return err
		}
		found[y.Name] = true
		owners[y] = ref.owner()
		y.Name = fmt.Sprintf(".klp.sym.%s.%s,%d", ref.Object, ref.Name, ref.Position)
		y.Index, y.Bind = SectionIndex, elf.STB_GLOBAL
	}
	for name := range refs {
		if !found[name] {
			return fmt.Errorf("%w: it has no undefined symbol %q", ErrConvert, name)
		}
	}
	var added []*relocatable.Section
	for _, s := range f.Sections {
		if s.Type == elf.SHT_RELA {
			add, err := split(s, owners)
			if err != nil {
				return err
			}
			added = append(added, add...)
		}
	}
	f.Sections = slices.DeleteFunc(f.Sections, func(s *relocatable.Section) bool {
		return s.Type == elf.SHT_RELA && s.Flags&RelaFlag == 0 && len(s.Relocs) == 0
	})
	f.Sections = append(f.Sections, added...)
	return nil
}

// split takes the relocations against symbols with owners out of s and returns
// them in sections of their own, one for each owner, by name.
func split(s *relocatable.Section, owners map[*relocatable.Symbol]string) ([]*relocatable.Section, error) {
	var out []*relocatable.Section
	kept := s.Relocs[:0:0]
	for _, r := range s.Relocs {
		owner, ok := owners[r.Symbol]
		if !ok {
			kept = append(kept, r)
			continue
		}
		if s.Target.Flags&elf.SHF_ALLOC == 0 {
			return nil, fmt.Errorf("%w: section %s, which is not loaded, refers to %s", ErrConvert, s.Target.Name, r.Symbol.Name)
		}
		i := slices.IndexFunc(out, func(x *relocatable.Section) bool { return x.Name == sectionName(owner, s.Target) })
		if i < 0 {
			i = len(out)
			out = append(out, &relocatable.Section{
				Name: sectionName(owner, s.Target), Type: elf.SHT_RELA, Flags: RelaFlag | elf.SHF_ALLOC | elf.SHF_INFO_LINK,
				Align: 8, Target: s.Target,
			})
		}
		out[i].Relocs = append(out[i].Relocs, r)
	}
	s.Relocs = kept
	slices.SortFunc(out, func(a, b *relocatable.Section) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func sectionName(owner string, target *relocatable.Section) string {
	return ".klp.rela." + owner + "." + target.Name
}
