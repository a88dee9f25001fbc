package debian

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"livemend.dev/livemend/author"
)

//go:embed cc.sh
var compilerScript string

// onePinned makes the compiler take every source line for the first. Warnings
// about that must not end it.
var onePinned = []string{"-D__LINE__=1", "-Wno-error"}

// maxCommand bounds one recorded command line, in bytes.
const maxCommand = 1 << 20

// treeOf is where a build is kept after its objects were taken out.
func (d *driver) treeOf(name string) string { return d.path("trees", name) }

// commandsOf is where it is kept how the objects of a build were compiled.
func (d *driver) commandsOf(name string) string { return d.path("trees", name+".commands") }

// keepTree puts a build aside.
func (d *driver) keepTree(name string) error {
	return errors.Join(
		os.RemoveAll(d.treeOf(name)), os.RemoveAll(d.commandsOf(name)),
		os.Rename(d.path("build"), d.treeOf(name)), os.Rename(d.path("commands"), d.commandsOf(name)),
		clearFolder(d.path("build")), clearFolder(d.path("commands")))
}

// pin compiles the objects that differ between the builds again with one number
// for all source lines, so that functions that differ in nothing else can be
// told. An object that does not compile so, because its code makes names of line
// numbers, is left out.
func (d *driver) pin(ctx context.Context, before, after tree, in *author.Request) error {
	paths, err := author.Renumbered(ctx, in.Before, in.After)
	if err != nil || len(paths) == 0 {
		return err
	}
	was, err := digestPath(in.Before)
	if err != nil {
		return err
	}
	is, err := digestPath(in.After)
	if err != nil {
		return err
	}
	const folder = "pinned"
	facts, err := d.do(ctx, job{
		name: folder, inputs: digest(was, is, strings.Join(onePinned, " ")),
		advice: "The log has the compiler's words.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := errors.Join(clearFolder(d.path(folder)), d.dependencies(ctx, log, before.dsc), d.dependencies(ctx, log, after.dsc)); err != nil {
				return nil, nil, err
			}
			for _, side := range []struct{ name, objects string }{{"before", in.Before}, {"after", in.After}} {
				if paths, err = d.compileAgain(ctx, log, side.name, side.objects, filepath.Join(folder, side.name), paths); err != nil {
					return nil, nil, err
				}
			}
			if len(paths) == 0 {
				return nil, nil, nil
			}
			return map[string]string{"made": "yes"}, []string{folder}, nil
		},
	})
	if err == nil && facts["made"] != "" {
		in.PinnedBefore, in.PinnedAfter = d.path(folder, "before"), d.path(folder, "after")
	}
	return err
}

// compileAgain compiles objects of a build that was kept, without line numbers,
// and returns the paths of those that it could make.
func (d *driver) compileAgain(ctx context.Context, log io.Writer, name, objects, to string, paths []string) (made []string, err error) {
	if err := errors.Join(os.RemoveAll(d.path("build")), os.Rename(d.treeOf(name), d.path("build"))); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, os.Rename(d.path("build"), d.treeOf(name)), clearFolder(d.path("build")))
	}()
	commands, err := d.commands(name)
	if err != nil {
		return nil, err
	}
	for _, at := range paths {
		sum, err := digestPath(filepath.Join(objects, at))
		if err != nil {
			return nil, err
		}
		c, ok := commands[sum]
		if !ok {
			continue // changed after it was compiled, or made by something else
		}
		if err := os.MkdirAll(d.path(path.Dir(path.Join(to, at))), 0o755); err != nil {
			return nil, err
		}
		if err := d.root.command(ctx, log, name, c.pinned(path.Join(inside, to, at))...); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue // the log says why
		}
		made = append(made, at)
	}
	return made, nil
}

// compilation is how one object was compiled.
type compilation struct {
	dir  string
	args []string
}

// output returns the name of the object as the command gives it, and where in
// the arguments; 0 when the compiler chose the name.
func (c compilation) output() (name string, at int) {
	for i := 1; i < len(c.args); i++ {
		if c.args[i-1] == "-o" {
			return c.args[i], i
		}
	}
	for _, arg := range c.args[1:] {
		if ext := path.Ext(arg); ext != "" && strings.Contains(" .c .cc .cpp .cxx .S .s ", " "+ext+" ") {
			name = strings.TrimSuffix(path.Base(arg), ext) + ".o"
		}
	}
	return name, 0
}

// pinned returns the command that compiles the object to another place and
// without line numbers.
func (c compilation) pinned(to string) []string {
	args := append([]string{"/usr/bin/env", "-C", c.dir}, c.args...)
	if _, at := c.output(); at > 0 {
		args[3+at] = to
	} else {
		args = append(args, "-o", to)
	}
	return append(args, onePinned...)
}

// commands reads how the objects of a build, which lies in the folder of builds,
// were compiled: by digest of the object.
func (d *driver) commands(name string) (map[string]compilation, error) {
	entries, err := os.ReadDir(d.commandsOf(name))
	if err != nil {
		return nil, err
	}
	out := map[string]compilation{}
	for _, e := range entries {
		file := filepath.Join(d.commandsOf(name), e.Name())
		if info, err := e.Info(); err != nil || info.Size() > maxCommand {
			return nil, errors.Join(err, fmt.Errorf("%s is too large", file))
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c, ok := parseCompilation(text)
		if !ok {
			return nil, fmt.Errorf("%s cannot be read", file)
		}
		object, _ := c.output()
		below, err := filepath.Rel(buildFolder, joinPath(c.dir, object))
		if err != nil || object == "" || !filepath.IsLocal(below) {
			continue // of a test whether the compiler can do something
		}
		if info, err := os.Lstat(d.path("build", below)); err != nil || !info.Mode().IsRegular() {
			continue // not there any more
		}
		sum, err := digestPath(d.path("build", below))
		if err != nil {
			return nil, err
		}
		out[sum] = c
	}
	return out, nil
}

// parseCompilation reads a folder and a command line, each part ended by NUL.
func parseCompilation(text []byte) (c compilation, ok bool) {
	parts := strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")
	if len(parts) < 3 || !path.IsAbs(parts[0]) || parts[1] == "" {
		return c, false
	}
	return compilation{dir: parts[0], args: parts[1:]}, true
}
