package archtest

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "livemend.dev/livemend"

// golang is the part of `go list -json` that the rules look at.
type golang struct {
	ImportPath   string
	Dir          string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// folder is the package's path below the module.
func (p golang) folder() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// ours lists the module's packages.
var ours = sync.OnceValues(func() ([]golang, error) { return list("./...") })

func list(args ...string) ([]golang, error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var packages []golang
	for d := json.NewDecoder(out); ; {
		var p golang
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, errors.Join(err, cmd.Wait())
		}
		packages = append(packages, p)
	}
	return packages, cmd.Wait()
}

var root = filepath.Join("..", "..")

func packages(t *testing.T) []golang {
	t.Helper()
	list, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// under reports whether folder is one of the folders or inside one; a folder
// that ends in "!" stands for itself only.
func under(folder string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		if exact, ok := strings.CutSuffix(f, "!"); ok {
			return folder == exact
		}
		return folder == f || strings.HasPrefix(folder, f+"/")
	})
}

// imports returns the folders of the module that p imports.
func imports(p golang) []string {
	var folders []string
	for _, i := range p.Imports {
		if f, ok := strings.CutPrefix(i, module+"/"); ok {
			folders = append(folders, f)
		}
	}
	return folders
}

// TestEveryPackageSaysWhatItIsFor wants a package comment of more than a name.
func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	const short = 100 // characters
	for _, p := range packages(t) {
		if text := comment(t, p); len(text) < short {
			t.Errorf("%s: the package comment must say what the package is for and what it must not do: %q", p.folder(), text)
		}
	}
}

// comment returns the whole package comment; go list knows its first sentence only.
func comment(t *testing.T, p golang) string {
	t.Helper()
	var text strings.Builder
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(f.Doc.Text())
	}
	return text.String()
}
