package debian

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"

	"livemend.dev/livemend/author/object"
)

// likeness says how well a rebuilt file describes the stock binary.
type likeness int

const (
	unlike   likeness = iota // some code or table is different
	sameCode                 // only constants differ: author proves each function that it touches
	sameLoad                 // all that is loaded is equal but the build-id
	sameID                   // the build-id is equal too
)

func (l likeness) String() string {
	return [...]string{"different", "the same code and tables, other constants", "equal in everything loaded but the build-id", "equal, with the same build-id"}[l]
}

const buildIDNote = ".note.gnu.build-id"

// elfFile is a file with its loaded sections by name.
type elfFile struct {
	file    *elf.File
	data    []byte
	loaded  []*elf.Section
	content map[string][]byte
}

// openELF reads a linked file. debug/elf panics on some damaged files.
func openELF(path string) (f *elfFile, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("%s: damaged: %v", path, p)
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > object.MaxBytes {
		return nil, fmt.Errorf("%s is too large", path)
	}
	f = &elfFile{content: map[string][]byte{}}
	if f.data, err = os.ReadFile(path); err != nil {
		return nil, err
	}
	if f.file, err = elf.NewFile(bytes.NewReader(f.data)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, s := range f.file.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		if _, twice := f.content[s.Name]; twice {
			return nil, fmt.Errorf("%s has two sections %s", path, s.Name)
		}
		f.loaded = append(f.loaded, s)
		f.content[s.Name] = nil
		if s.Type != elf.SHT_NOBITS {
			if s.Offset > uint64(len(f.data)) || s.FileSize > uint64(len(f.data))-s.Offset {
				return nil, fmt.Errorf("%s: section %s reaches beyond the file", path, s.Name)
			}
			f.content[s.Name] = f.data[s.Offset : s.Offset+s.FileSize]
		}
	}
	return f, nil
}

// compare says how like rebuilt is to stock. why names the first difference
// that counts; it is meant for people.
func compare(stock, rebuilt *elfFile) (is likeness, why string) {
	if len(stock.loaded) != len(rebuilt.loaded) {
		return unlike, fmt.Sprintf("the stock file has %d loaded sections, the rebuilt one %d", len(stock.loaded), len(rebuilt.loaded))
	}
	is = sameID
	for i, s := range stock.loaded {
		r := rebuilt.loaded[i]
		ours, theirs := rebuilt.content[s.Name], stock.content[s.Name]
		switch {
		case s.Name != r.Name || s.Addr != r.Addr || s.Size != r.Size || s.Flags != r.Flags || s.Type != r.Type:
			return unlike, cmp.Or(differingFunction(stock, rebuilt), fmt.Sprintf("section %s is not where it was, or has another size", s.Name))
		case bytes.Equal(ours, theirs):
		case s.Name == buildIDNote:
			is = min(is, sameLoad)
		case s.Flags&(elf.SHF_EXECINSTR|elf.SHF_WRITE) == 0 && s.Type == elf.SHT_PROGBITS:
			is, why = min(is, sameCode), "section "+s.Name+" has another content"
		default:
			return unlike, cmp.Or(differingFunction(stock, rebuilt), "section "+s.Name+" has another content")
		}
	}
	if is == sameCode && bytes.Equal(stock.content[buildIDNote], rebuilt.content[buildIDNote]) {
		return unlike, "the build-ids are equal but " + why
	}
	return is, why
}

// differingFunction names the first function of rebuilt whose bytes are not in
// stock at the same address.
func differingFunction(stock, rebuilt *elfFile) string {
	names, err := rebuilt.file.Symbols()
	if err != nil {
		return ""
	}
	slices.SortStableFunc(names, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	for _, y := range names {
		if elf.ST_TYPE(y.Info) != elf.STT_FUNC || y.Size == 0 {
			continue
		}
		ours, theirs := rebuilt.at(y.Value, y.Size), stock.at(y.Value, y.Size)
		if ours != nil && !bytes.Equal(ours, theirs) {
			return fmt.Sprintf("function %s is the first that differs", y.Name)
		}
	}
	return ""
}

// at returns n bytes of code at an address.
func (f *elfFile) at(addr, n uint64) []byte {
	for _, s := range f.loaded {
		body := f.content[s.Name]
		if s.Flags&elf.SHF_EXECINSTR != 0 && addr >= s.Addr && addr-s.Addr <= uint64(len(body)) && n <= uint64(len(body))-(addr-s.Addr) {
			return body[addr-s.Addr:][:n]
		}
	}
	return nil
}

// renamed is the rebuilt file under the stock file's build-id: good as its twin
// once compare has found the two alike.
func renamed(stock, rebuilt *elfFile) ([]byte, error) {
	id := stock.content[buildIDNote]
	note := rebuilt.file.Section(buildIDNote)
	if len(id) == 0 || note == nil || note.FileSize != uint64(len(id)) {
		return nil, errors.New("the stock file and the rebuilt one have no build-id of the same kind")
	}
	out := bytes.Clone(rebuilt.data)
	copy(out[note.Offset:], id)
	return out, nil
}
