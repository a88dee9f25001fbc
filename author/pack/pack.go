// Package pack describes livepatch modules that others made: with kpatch-build or
// klp-build, or the maker of a distribution. The module itself stays as it is,
// with its signature; what it replaces is read from its tables, and what it fixes
// from the texts that come with it.
//
// The package is pure. It does not judge whether a module is good: who publishes
// it answers for that.
package pack

import (
	"debug/elf"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"livemend.dev/livemend/author/relocatable"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

// Limits on what is taken over.
const (
	maxFunctions = 4096
	maxFixes     = 4096
)

// ErrModule is wrapped when a module cannot be published.
var ErrModule = errors.New("the module cannot be made a patch")

// Module completes the metadata of a patch from its module. Filled in are kind,
// architecture, release, functions and the module among the inputs; release and
// architecture that are there already must be the module's.
func Module(data []byte, md *patch.Metadata) error {
	m, err := module.Read(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	switch {
	case !m.Livepatch:
		return fmt.Errorf("%w: %s is a kernel module, but no live patch", ErrModule, m.Name)
	case m.Arch != "amd64":
		return fmt.Errorf("%w: it is for %s, and only modules for amd64 can be read", ErrModule, m.Arch)
	case md.Target.Release != "" && md.Target.Release != m.Release:
		return fmt.Errorf("%w: it is for kernel %s and not for %s", ErrModule, m.Release, md.Target.Release)
	case md.Target.Arch != "" && md.Target.Arch != m.Arch:
		return fmt.Errorf("%w: it is for %s and not for %s", ErrModule, m.Arch, md.Target.Arch)
	}
	md.Kind = patch.Kernel
	md.Target.Release, md.Target.Arch = m.Release, m.Arch
	md.Functions, err = Functions(data)
	return err
}

// Functions lists what a livepatch module replaces, sorted by name. It is empty
// when the module has no table of a known form.
func Functions(data []byte) ([]patch.Function, error) {
	f, err := relocatable.Read(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	var out []patch.Function
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA || s.Target.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		for i, r := range s.Relocs {
			name, fn := names(f, s, i, r)
			if fn == nil {
				continue
			}
			out = append(out, patch.Function{Name: name, Size: int64(min(fn.Size, relocatable.MaxBytes))})
			if len(out) > maxFunctions {
				return nil, fmt.Errorf("%w: it replaces more than %d functions", ErrModule, maxFunctions)
			}
		}
	}
	slices.SortFunc(out, func(a, b patch.Function) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(out), nil
}

// kpatchFuncs is the table that kpatch-build makes: the new function stands at
// the start of an entry, and the name of the old one kpatchName bytes behind.
const (
	kpatchFuncs = ".kpatch.funcs"
	kpatchName  = 40
)

// names returns the name and the new function when relocation i of s is the start
// of an entry of a table of replaced functions: the kernel's own struct klp_func
// has the name and then the function.
func names(f *relocatable.File, s *relocatable.Section, i int, r relocatable.Reloc) (name string, fn *relocatable.Symbol) {
	at := func(off uint64) relocatable.Reloc {
		for _, x := range s.Relocs[i:] {
			if x.Off == off && x.Type == elf.R_X86_64_64 {
				return x
			}
		}
		return relocatable.Reloc{}
	}
	text, code := r, at(r.Off+8)
	if s.Target.Name == kpatchFuncs {
		text, code = at(r.Off+kpatchName), r
	}
	fn = function(f, code)
	if fn == nil || text.Symbol == nil {
		return "", nil
	}
	name = textAt(text)
	if !namePattern.MatchString(name) {
		return "", nil
	}
	return name, fn
}

var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,126}$`)

// function returns the function that a relocation refers to, or nil. One that is
// local is referred to by its place in a section.
func function(f *relocatable.File, r relocatable.Reloc) *relocatable.Symbol {
	y := r.Symbol
	if y == nil || y.Section == nil || y.Section.Flags&elf.SHF_EXECINSTR == 0 || r.Type != elf.R_X86_64_64 {
		return nil
	}
	for _, fn := range f.Symbols {
		if fn.Type == elf.STT_FUNC && fn.Section == y.Section && fn.Value == y.Value+uint64(r.Addend) {
			return fn
		}
	}
	return nil
}

// textAt returns the text that a relocation refers to, or nothing.
func textAt(r relocatable.Reloc) string {
	s := r.Symbol.Section
	if s == nil || s.Flags&(elf.SHF_EXECINSTR|elf.SHF_ALLOC) != elf.SHF_ALLOC {
		return ""
	}
	from := int64(r.Symbol.Value) + r.Addend
	if from < 0 || from >= int64(len(s.Data)) {
		return ""
	}
	text, _, found := strings.Cut(string(s.Data[from:min(from+256, int64(len(s.Data)))]), "\x00")
	if !found {
		return ""
	}
	return text
}

var cvePattern = regexp.MustCompile(`\bCVE-[0-9]{4}-[0-9]{4,9}\b`)

// CVEs returns the vulnerabilities that texts name, such as a changelog's, each
// once, in their order.
func CVEs(texts ...string) ([]patch.CVE, error) {
	var out []patch.CVE
	seen := map[string]bool{}
	for _, text := range texts {
		for _, name := range cvePattern.FindAllString(text, -1) {
			if seen[name] {
				continue
			}
			if seen[name] = true; len(out) == maxFixes {
				return nil, fmt.Errorf("%w: its texts name more than %d vulnerabilities", ErrModule, maxFixes)
			}
			out = append(out, patch.CVE(name))
		}
	}
	return out, nil
}
