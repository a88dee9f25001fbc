package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"livemend.dev/livemend/author/refusal"
)

// maxReached bounds the objects that a changed header may reach.
const maxReached = 40

// touched returns the files that a diff changes, sorted, and refuses those that a
// patch of single objects cannot follow.
func touched(diff []byte) (sources, headers []string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(diff))
	lines.Buffer(nil, maxDiff)
	all := map[string]bool{}
	var refused []error
	old := ""
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "--- "); ok {
			old = fileIn(name)
			continue
		}
		name, ok := strings.CutPrefix(line, "+++ ")
		if !ok || old == "" {
			continue
		}
		now := fileIn(name)
		switch {
		case now == "" || old == "/dev/null" || now == "/dev/null":
			refused = append(refused, refusal.New(refusal.Sections, max(old, now), "a file comes or goes, so what the kernel is linked from would change"))
		case !fs.ValidPath(now):
			return nil, nil, fmt.Errorf("the diff names a file %q", now)
		default:
			all[now] = true
		}
		old = ""
	}
	if err := lines.Err(); err != nil {
		return nil, nil, fmt.Errorf("reading the diff: %w", err)
	}
	if len(all) > maxSource {
		return nil, nil, fmt.Errorf("the diff changes %d files; more than %d are no fix", len(all), maxSource)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch top, _, _ := strings.Cut(name, "/"); {
		case top == "Documentation" || top == "tools" || top == "samples" || top == "debian":
		case strings.HasPrefix(name, "arch/") && !strings.HasPrefix(name, "arch/x86/"):
		case path.Ext(name) == ".c":
			sources = append(sources, name)
		case path.Ext(name) == ".h":
			headers = append(headers, name)
		default:
			refused = append(refused, refusal.New(refusal.Sections, name, "only changes of C sources and headers can be followed into objects"))
		}
	}
	if len(refused) == 0 && len(sources)+len(headers) == 0 {
		refused = append(refused, refusal.New(refusal.Nothing, "the diff", "it changes no source of a kernel for amd64"))
	}
	return sources, headers, errors.Join(refused...)
}

// fileIn returns the name in a line of a diff, without what stands in front of
// the first slash.
func fileIn(text string) string {
	name, _, _ := strings.Cut(strings.TrimSpace(text), "\t")
	if name == "/dev/null" {
		return name
	}
	_, name, _ = strings.Cut(name, "/")
	return name
}

// reached returns the C sources that include one of the headers, directly or
// through others. Where it cannot be told which of several headers of a name is
// meant, all are, so it may return too many.
func reached(tree string, headers []string) ([]string, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	g, err := readIncludes(tree)
	if err != nil {
		return nil, err
	}
	users := g.users()
	seen, sources := map[string]bool{}, map[string]bool{}
	queue := slices.Clone(headers)
	for len(queue) > 0 {
		header := queue[0]
		queue = queue[1:]
		if seen[header] {
			continue
		}
		seen[header] = true
		for _, name := range users[header] {
			if path.Ext(name) == ".h" {
				queue = append(queue, name)
			} else {
				sources[name] = true
			}
		}
		if len(sources) > maxReached {
			return nil, refusal.New(refusal.Sections, strings.Join(headers, ", "), fmt.Sprintf("the header reaches more than %d objects, which would all have to be built and compared; move the change into the sources that need it", maxReached))
		}
	}
	return slices.Sorted(maps.Keys(sources)), nil
}

// includes is what the files of a tree include.
type includes struct {
	by      map[string][]string // file to the names that it includes, as they stand there
	headers map[string][]string // last part of a header's name to the headers
}

func readIncludes(tree string) (*includes, error) {
	g := &includes{by: map[string][]string{}, headers: map[string][]string{}}
	err := filepath.WalkDir(tree, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(tree, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(name) {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(name)
		if ext != ".c" && ext != ".h" && ext != ".S" || !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		g.by[name] = included(text)
		if ext == ".h" {
			g.headers[path.Base(name)] = append(g.headers[path.Base(name)], name)
		}
		return nil
	})
	return g, err
}

// users returns for each header the files that include it, or may.
func (g *includes) users() map[string][]string {
	out := map[string][]string{}
	for _, file := range slices.Sorted(maps.Keys(g.by)) {
		for _, name := range g.by[file] {
			for _, header := range g.meant(file, name) {
				out[header] = append(out[header], file)
			}
		}
	}
	return out
}

// meant returns the headers that a file may mean by a name: in quotes the one
// beside it, or those of that name that lie nearest; else all whose names end so.
func (g *includes) meant(file, name string) []string {
	rest, quoted := strings.CutPrefix(name, `"`)
	all := g.headers[path.Base(rest)]
	if beside := path.Join(path.Dir(file), rest); quoted && slices.Contains(all, beside) {
		return []string{beside}
	}
	end := "/" + strings.TrimLeft(path.Clean(rest), "./")
	var out []string
	nearest := 0
	for _, header := range all {
		if !strings.HasSuffix("/"+header, end) {
			continue
		}
		if quoted {
			near := shared(file, header)
			if near < nearest {
				continue
			}
			if near > nearest {
				out, nearest = nil, near
			}
		}
		out = append(out, header)
	}
	return out
}

// shared returns how many folders two files have in common, from the top.
func shared(a, b string) int {
	x, y := strings.Split(path.Dir(a), "/"), strings.Split(path.Dir(b), "/")
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	return n
}

// skipped reports whether a folder holds no sources of a kernel for amd64.
func skipped(dir string) bool {
	switch dir {
	case "Documentation", "tools", "samples", "debian", "scripts", ".git":
		return true
	}
	return path.Dir(dir) == "arch" && dir != "arch/x86"
}

// included lists the names that a file includes; those in quotes keep the first.
func included(text []byte) []string {
	var out []string
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("#"))
		if !ok {
			continue
		}
		if rest, ok = bytes.CutPrefix(bytes.TrimSpace(rest), []byte("include")); !ok {
			continue
		}
		name := string(bytes.TrimSpace(rest))
		if len(name) < 2 || name[0] != '"' && name[0] != '<' {
			continue
		}
		end := strings.IndexAny(name[1:], `">`)
		if end < 0 {
			continue
		}
		out = append(out, strings.TrimPrefix(name[:end+1], "<"))
	}
	return out
}
