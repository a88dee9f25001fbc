package link

import (
	"debug/elf"
	"strings"

	"livemend.dev/livemend/author/object"
)

// stock answers questions about the binary: its bytes and slots, and by the
// names of its twin where things are.
type stock struct {
	bin   *object.Binary
	names *object.Binary
}

// global returns the definition of a name that objects share. Hidden names are
// local in a linked file and listed under a file without a name. clash is true
// when the name stands for several places.
func (s *stock) global(name string) (n object.Named, ok, clash bool) {
	var hidden object.Named
	var isHidden bool
	_, version, _ := strings.Cut(name, "@")
	version = strings.TrimLeft(version, "@")
	for _, c := range s.names.Lookup(object.Unversioned(name)) {
		switch {
		case c.Type == elf.STT_TLS:
			continue
		case c.Version != "" && c.Version != version && (version != "" || !c.Default):
			continue
		case c.Global && ok && c.Addr != n.Addr:
			clash = true
		case c.Global:
			n, ok = c, true
		case c.File == "" && isHidden && c.Addr != hidden.Addr:
			clash = true
		case c.File == "":
			hidden, isHidden = c, true
		}
	}
	if !ok && isHidden {
		return hidden, true, clash
	}
	return n, ok, clash
}

// threadGlobal returns the thread-local variable that objects share under a name.
func (s *stock) threadGlobal(name string) (n object.Named, ok bool) {
	for _, c := range s.names.Lookup(name) {
		if c.Type != elf.STT_TLS || !c.Global && c.File != "" {
			continue
		}
		if ok && c.Addr != n.Addr {
			return object.Named{}, false
		}
		n, ok = c, true
	}
	return n, ok
}

// local returns the definition of a local name in one group of the table.
func (s *stock) local(group int, name string) (n object.Named, ok bool) {
	if group == 0 {
		return object.Named{}, false
	}
	for _, c := range s.names.Lookup(name) {
		if !c.Global && c.Group == group {
			if ok && c.Addr != n.Addr {
				return object.Named{}, false
			}
			n, ok = c, true
		}
	}
	return n, ok
}

// groups returns the groups of the table that list a source file's local names.
func (s *stock) groups(source string) []int {
	var out []int
	if source == "" {
		return nil
	}
	seen := map[int]bool{}
	for _, n := range s.names.Named {
		if !n.Global && n.File == source && !seen[n.Group] {
			seen[n.Group] = true
			out = append(out, n.Group)
		}
	}
	return out
}

// symbol returns where symbol i of o is, o being a part of the binary whose
// local names are in the given group.
func (s *stock) symbol(o *object.Object, group, i int) (n object.Named, ok bool) {
	if o.Local(i) {
		return s.local(group, o.Symbols[i].Name)
	}
	n, ok, clash := s.global(o.Symbols[i].Name)
	return n, ok && !clash
}

// function returns where function f of o is in the binary.
func (s *stock) function(m *member, o *object.Object, f *object.Function) (n object.Named, ok bool) {
	if f == nil {
		return object.Named{}, false
	}
	return s.symbol(o, m.group, f.Symbol)
}
