package sample

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Built is everything that a build made. All paths are absolute.
type Built struct {
	Library   string // as released: stripped
	Twin      string // the same link with its symbols
	Daemon    string
	Before    string // folder of objects of the released source, one section per function
	After     string // the same of the fixed source
	BuildID   string // of Library, lower-case hexadecimal
	Packages  []string
	FixedFile string // the source file that the fix changes, for people
}

// flags are those of the released build; objects for the comparison add
// sections, as every object diff needs them.
var (
	flags        = []string{"-std=gnu11", "-O2", "-g", "-Wall", "-Wextra"}
	sectionFlags = []string{"-fPIC", "-ffunction-sections", "-fdata-sections"}
	linkFlags    = []string{"-fPIC", "-shared", "-Wl,-soname," + LibraryFile, "-Wl,--build-id=sha1", "-Wl,-z,relro", "-Wl,-z,now"}
)

// Build compiles the sample in dir, which must be empty, with gcc, and packs
// its two Debian packages. Takes a few seconds.
func Build(ctx context.Context, dir string) (*Built, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b := &builder{ctx: ctx, dir: dir}
	out := &Built{
		Library:   filepath.Join(dir, LibraryFile),
		Twin:      filepath.Join(dir, LibraryFile+".debug"),
		Daemon:    filepath.Join(dir, "echobeatd"),
		Before:    filepath.Join(dir, "before"),
		After:     filepath.Join(dir, "after"),
		FixedFile: "length.h",
	}
	released, fixed, daemon := filepath.Join(dir, "released"), filepath.Join(dir, "fixed"), filepath.Join(dir, "daemon")
	b.unpack(released, "c/lib")
	b.unpack(fixed, "c/lib", "c/fix")
	b.unpack(daemon, "c/daemon")
	b.objects(released, out.Before)
	b.objects(fixed, out.After)
	b.gcc(released, append(append([]string{"-o", out.Twin}, linkFlags...), b.sources(released)...)...)
	b.run("", "objcopy", "--strip-all", out.Twin, out.Library)
	b.gcc(daemon, append(append([]string{"-pthread", "-I" + released, "-o", out.Daemon}, b.sources(daemon)...),
		out.Twin, "-Wl,-rpath,"+filepath.Dir(LibraryPath))...)
	b.run("", "strip", out.Daemon)
	if b.err == nil {
		out.BuildID, b.err = buildID(out.Library)
	}
	out.Packages = b.packages(out)
	return out, b.err
}

// builder runs the steps of one build and keeps the first error.
type builder struct {
	ctx context.Context
	dir string
	err error
}

// unpack writes the files of the embedded folders into to; later folders win.
func (b *builder) unpack(to string, folders ...string) {
	for _, folder := range folders {
		entries, err := fs.ReadDir(source, folder)
		b.keep(err)
		for _, e := range entries {
			content, err := fs.ReadFile(source, folder+"/"+e.Name())
			b.keep(err)
			b.file(filepath.Join(to, e.Name()), content, 0o644)
		}
	}
}

// sources lists the C files of a folder by base name, in order.
func (b *builder) sources(folder string) []string {
	paths, err := filepath.Glob(filepath.Join(escapeGlob(folder), "*.c"))
	b.keep(err)
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

// objects compiles every C file of from into a folder of objects.
func (b *builder) objects(from, to string) {
	b.keep(os.MkdirAll(to, 0o755))
	for _, name := range b.sources(from) {
		object := filepath.Join(to, strings.TrimSuffix(name, ".c")+".o")
		b.gcc(from, append(append([]string{}, sectionFlags...), "-c", "-o", object, name)...)
	}
}

func (b *builder) gcc(folder string, args ...string) {
	b.run(folder, "gcc", append(append([]string{}, flags...), args...)...)
}

func (b *builder) run(folder, name string, args ...string) {
	if b.err != nil {
		return
	}
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Dir = folder
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		b.keep(fmt.Errorf("build the sample: %s: %w\n%s", name, err, output.Bytes()))
	}
}

// file writes one file with its folder.
func (b *builder) file(path string, content []byte, mode fs.FileMode) {
	if b.err != nil {
		return
	}
	b.keep(os.MkdirAll(filepath.Dir(path), 0o755))
	b.keep(os.WriteFile(path, content, mode))
}

func (b *builder) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

// buildID reads the GNU build-id of a file.
func buildID(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const header = 16 // three sizes, then the name "GNU\0"
	section := f.Section(".note.gnu.build-id")
	if section == nil {
		return "", fmt.Errorf("%s has no build-id", path)
	}
	note, err := section.Data()
	if err != nil {
		return "", err
	}
	if len(note) <= header {
		return "", fmt.Errorf("%s: the build-id note is too short", path)
	}
	return hex.EncodeToString(note[header:]), nil
}

// escapeGlob makes a folder's name safe inside a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
