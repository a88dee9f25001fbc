package debian

import (
	"bufio"
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

//go:embed ld.sh
var linkerScript string

// recorder returns the linker that keeps what goes into the library and comes
// out. All versions of a library count, whatever their number.
func recorder(library string) string {
	pattern := library
	if i := strings.Index(library, ".so"); i > 0 {
		pattern = library[:i+len(".so")] + "*"
	}
	return strings.ReplaceAll(linkerScript, "@STEM@", pattern)
}

// recorded is one run of the linker.
type recorded struct {
	dir    string // with output, map and inputs
	number int
	cwd    string // in the throw-away root
	out    string // name of the output as given
}

// place names the link among those of a build.
func (r *recorded) place() string { return path.Clean(joinPath(r.cwd, r.out)) }

func (r *recorded) output() string { return filepath.Join(r.dir, "output") }

// named is the output with the names of local symbols.
func (r *recorded) named() string {
	name := filepath.Join(r.dir, "named")
	if _, err := os.Stat(name); err != nil {
		return r.output()
	}
	return name
}

func joinPath(dir, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(dir, name)
}

// readLinks lists what the recording linker kept, in the order of the runs.
func readLinks(dir string) ([]*recorded, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []*recorded
	for _, e := range entries {
		r := &recorded{dir: filepath.Join(dir, e.Name())}
		if r.number, err = strconv.Atoi(e.Name()); err != nil {
			return nil, fmt.Errorf("%s is not from the recording linker", r.dir)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "done")); err != nil {
			return nil, fmt.Errorf("a link was not recorded to its end: %w", err)
		}
		what, err := os.ReadFile(filepath.Join(r.dir, "what"))
		if err != nil {
			return nil, err
		}
		lines := strings.Split(string(what), "\n")
		if len(lines) != 3 {
			return nil, fmt.Errorf("%s/what cannot be read", r.dir)
		}
		r.cwd, r.out = lines[0], lines[1]
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *recorded) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// sameLink finds the run that made the output at place; the last, should there
// be several.
func sameLink(all []*recorded, place string) *recorded {
	for _, r := range slices.Backward(all) {
		if r.place() == place {
			return r
		}
	}
	return nil
}

// contribution is one object in a link map: a file, or the member of an archive.
type contribution struct{ file, member string }

// contributions lists what a link map names as the origin of code or data.
func contributions(linkMap io.Reader) ([]contribution, error) {
	var all []contribution
	seen := map[contribution]bool{}
	lines := bufio.NewScanner(linkMap)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, ok := origin(lines.Text())
		if !ok {
			continue
		}
		c := contribution{file: file}
		if strings.HasSuffix(file, ")") {
			if i := strings.LastIndexByte(file, '('); i > 0 {
				c = contribution{file: file[:i], member: file[i+1 : len(file)-1]}
			}
		}
		if path.Ext(c.file) != ".o" && c.member == "" || seen[c] {
			continue
		}
		seen[c] = true
		all = append(all, c)
	}
	return all, lines.Err()
}

// origin returns the file at the end of a line "[section] 0xADDRESS 0xSIZE file".
func origin(line string) (string, bool) {
	for _, skip := range []int{0, 1} {
		rest := line
		for range skip {
			_, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		}
		address, rest, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		size, rest, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		if strings.HasPrefix(address, "0x") && strings.HasPrefix(size, "0x") {
			file := strings.TrimLeft(rest, " ")
			return file, file != ""
		}
	}
	return "", false
}

// extract writes the objects of a link below dir, named by their paths below
// tree, the folder of the build.
func (r *recorded) extract(dir, tree string) (count int, err error) {
	f, err := os.Open(filepath.Join(r.dir, "map"))
	if err != nil {
		return 0, err
	}
	list, err := contributions(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	kept, err := r.kept()
	if err != nil {
		return 0, err
	}
	archives := map[string]map[string][]byte{}
	for _, c := range list {
		name, err := filepath.Rel(tree, path.Clean(joinPath(r.cwd, c.file)))
		if err != nil || !filepath.IsLocal(name) {
			continue // of the compiler or another package
		}
		from, ok := kept[c.file]
		if !ok {
			return 0, fmt.Errorf("%s went into %s but was gone when the link ended", name, r.out)
		}
		if c.member != "" {
			if archives[c.file] == nil {
				data, err := os.ReadFile(from)
				if err != nil {
					return 0, err
				}
				if archives[c.file], err = members(data); err != nil {
					return 0, fmt.Errorf("%s: %w", name, err)
				}
			}
			data := archives[c.file][c.member]
			if data == nil {
				return 0, fmt.Errorf("%s has no single member %s", name, c.member)
			}
			err = writeFile(filepath.Join(dir, name, withObjectName(path.Base(c.member))), data)
		} else {
			var data []byte
			if data, err = os.ReadFile(from); err == nil {
				err = writeFile(filepath.Join(dir, name), data)
			}
		}
		if err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}

// withObjectName makes a member's name one that readers of objects look for.
func withObjectName(name string) string {
	if path.Ext(name) == ".o" {
		return name
	}
	return name + ".o"
}

// kept maps the names of a link's inputs to the copies of them.
func (r *recorded) kept() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(r.dir, "files"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		number, name, found := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !found || !filepath.IsLocal(number) {
			return nil, fmt.Errorf("%s/files cannot be read", r.dir)
		}
		out[name] = filepath.Join(r.dir, number)
	}
	return out, nil
}

func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// members reads an archive of the common format. A name that stands for
// several members maps to nil.
func members(data []byte) (map[string][]byte, error) {
	const magic, headerSize = "!<arch>\n", 60
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, errors.New("it is no archive that holds its members (a thin one does not)")
	}
	out := map[string][]byte{}
	var long []byte
	for len(rest) > 0 {
		if len(rest) < headerSize || rest[58] != '`' || rest[59] != '\n' {
			return nil, errors.New("the archive is damaged")
		}
		name := strings.TrimRight(string(rest[:16]), " ")
		size, err := strconv.Atoi(strings.TrimRight(string(rest[48:58]), " "))
		if err != nil || size < 0 || size > len(rest)-headerSize {
			return nil, errors.New("the archive is damaged: a member has no size")
		}
		body := rest[headerSize : headerSize+size]
		rest = rest[min(len(rest), headerSize+size+size%2):]
		switch {
		case name == "/" || name == "/SYM64/":
			continue
		case name == "//":
			long = body
			continue
		case strings.HasPrefix(name, "/"):
			at, err := strconv.Atoi(name[1:])
			if err != nil || at < 0 || at >= len(long) {
				return nil, errors.New("the archive is damaged: a member has no name")
			}
			text, _, _ := strings.Cut(string(long[at:]), "\n")
			name = text
		}
		name = strings.TrimSuffix(name, "/")
		if _, twice := out[name]; twice {
			out[name] = nil
			continue
		}
		out[name] = body
	}
	return out, nil
}
