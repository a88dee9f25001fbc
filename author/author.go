// Package author builds live patches: it reads the objects of two builds and
// the binary that runs on servers, has them compared (objdiff) and linked
// (link), checks the result as its reader will, and describes it.
//
// Same inputs give the same bytes. It does not compile, sign or publish.
package author

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"livemend.dev/livemend/author/link"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// Request says what to build a patch from and what it is for.
type Request struct {
	Before, After string // folders of objects, built with -ffunction-sections -fdata-sections
	Binary        string // the stock binary, as it is on servers
	Twin          string // the same binary with a symbol table; may be empty when Binary has one

	// Some of the objects again, compiled with one number for __LINE__ everywhere;
	// empty when there are none. They tell which functions differ in nothing else.
	PinnedBefore, PinnedAfter string

	// What the new build was linked into, and the libraries that Binary needs, in
	// their order: one of them tells the versions of names that only the new
	// build imports. Both may be empty.
	Fixed        string
	Dependencies []string

	ID          string
	Level       int64
	Fixes       []patch.Fix
	Supersedes  []string
	Requires    []string
	Description string
	Library     string // file name for people; the default is Binary's
	Builder     string // program and version, for the provenance
	Waivers     []Waiver
}

// Result is a patch that passed every check of its reader.
type Result struct {
	Artifact []byte
	Metadata *patch.Metadata
	Image    *image.File
	Account  []string // what was done and what to know, for people to read
}

// Build makes a patch. The error holds refusal.Errors when the change must not
// become a live patch; nothing is written in any case.
func Build(ctx context.Context, r Request) (*Result, error) {
	before, after, err := readTrees(ctx, r.Before, r.After)
	if err != nil {
		return nil, err
	}
	stock, stockSum, err := readBinary(r.Binary)
	if err != nil {
		return nil, fmt.Errorf("reading the binary: %w", err)
	}
	inputs := []patch.Input{
		{Name: "objects before", SHA256: before.sum},
		{Name: "objects after", SHA256: after.sum},
		{Name: "binary " + filepath.Base(r.Binary), SHA256: stockSum},
	}
	names := stock
	if r.Twin != "" {
		var twinSum string
		if names, twinSum, err = readBinary(r.Twin); err != nil {
			return nil, fmt.Errorf("reading the twin: %w", err)
		}
		inputs = append(inputs, patch.Input{Name: "twin " + filepath.Base(r.Twin), SHA256: twinSum})
	}
	pinned, err := r.pinned(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the objects without line numbers: %w", err)
	}
	fixed, dependencies, err := r.readLinked(&inputs)
	if err != nil {
		return nil, err
	}
	desk := &desk{waivers: r.Waivers}
	out, err := link.Link(link.Input{
		Pairs: objdiff.ComparePinned(before.objects, after.objects, pinned), Stock: stock, Names: names,
		Fixed: fixed, Dependencies: dependencies, Review: desk.review,
	})
	if err != nil {
		return nil, err
	}
	if err := desk.unused(); err != nil {
		return nil, err
	}
	return r.finish(out, after, inputs)
}

// pinned compares the objects without line numbers.
func (r Request) pinned(ctx context.Context) ([]*objdiff.Pair, error) {
	if r.PinnedBefore == "" || r.PinnedAfter == "" {
		return nil, nil
	}
	before, after, err := readTrees(ctx, r.PinnedBefore, r.PinnedAfter)
	if err != nil {
		return nil, err
	}
	return objdiff.Compare(before.objects, after.objects), nil
}

// Renumbered returns the paths of the objects in which functions differ between
// two builds: compiled again without line numbers they may not.
func Renumbered(ctx context.Context, before, after string) ([]string, error) {
	old, fresh, err := readTrees(ctx, before, after)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, p := range objdiff.Compare(old.objects, fresh.objects) {
		if p.Before != nil && len(p.Changed) > 0 {
			paths = append(paths, p.Path)
		}
	}
	return paths, nil
}

// readLinked reads what tells the versions of new imports.
func (r Request) readLinked(inputs *[]patch.Input) (fixed *object.Binary, dependencies []*object.Binary, err error) {
	read := func(what, path string) (*object.Binary, error) {
		b, sum, err := readBinary(path)
		if err != nil {
			return nil, fmt.Errorf("reading the %s: %w", what, err)
		}
		*inputs = append(*inputs, patch.Input{Name: what + " " + filepath.Base(path), SHA256: sum})
		return b, nil
	}
	if r.Fixed != "" {
		if fixed, err = read("fixed binary", r.Fixed); err != nil {
			return nil, nil, err
		}
	}
	for _, path := range r.Dependencies {
		d, err := read("dependency", path)
		if err != nil {
			return nil, nil, err
		}
		dependencies = append(dependencies, d)
	}
	return fixed, dependencies, nil
}

// finish encodes and describes what was linked, and reads it back.
func (r Request) finish(out *link.Output, after *tree, inputs []patch.Input) (*Result, error) {
	artifact, err := image.Encode(out.File)
	if err != nil {
		return nil, err
	}
	if err := checkArtifact(artifact); err != nil {
		return nil, fmt.Errorf("the finished patch does not pass its own check, which is a fault of the author tools; nothing was written: %w", err)
	}
	md := &patch.Metadata{
		ID:          r.ID,
		Kind:        patch.User,
		Target:      patch.Target{BuildID: out.File.BuildID, Arch: out.File.Arch, Library: r.Library},
		Level:       r.Level,
		Fixes:       r.Fixes,
		Supersedes:  r.Supersedes,
		Requires:    r.Requires,
		Description: r.Description,
		Provenance:  patch.Provenance{Builder: r.Builder, Compiler: compiler(out.Touched, after), Inputs: inputs},
	}
	for _, w := range r.Waivers {
		md.Provenance.Waivers = append(md.Provenance.Waivers, w.String())
	}
	if md.Target.Library == "" {
		md.Target.Library = filepath.Base(r.Binary)
	}
	for _, f := range out.Functions {
		md.Functions = append(md.Functions, patch.Function{Name: f.Name, Size: f.NewSize})
	}
	if err := md.Check(); err != nil {
		return nil, err
	}
	if _, err := patch.ParseCustom(md.Custom()); err != nil {
		return nil, err
	}
	lines := account(out)
	for _, w := range md.Provenance.Waivers {
		lines = append(lines, "waived: "+w)
	}
	return &Result{Artifact: artifact, Metadata: md, Image: out.File, Account: lines}, nil
}

// checkArtifact reads the artifact as an agent would, at an address a good way
// from a library's.
func checkArtifact(artifact []byte) error {
	f, err := image.Decode(artifact)
	if err != nil {
		return err
	}
	const bias, distance = 0x7f0000000000, 1 << 30
	imports := make([]uint64, len(f.Imports))
	for _, at := range []uint64{bias - distance, bias + distance} {
		if _, err := f.Place(at, bias, imports...); err != nil {
			return err
		}
	}
	again, err := image.Encode(f)
	if err == nil && !bytes.Equal(again, artifact) {
		err = fmt.Errorf("%w: it reads differently than it was written", image.ErrFormat)
	}
	return err
}

// compiler says what made the code that travels.
func compiler(touched []*objdiff.Pair, after *tree) string {
	var found []string
	for _, p := range touched {
		text := after.producers[p.Path]
		if text == "" {
			text = strings.Join(p.After.Compiler, ", ")
		}
		if text != "" && !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	text := strings.Join(found, "; ")
	if len(text) > patch.MaxText {
		text = text[:patch.MaxText]
	}
	return strings.ToValidUTF8(text, "?")
}

// account says in a few lines what the patch does.
func account(out *link.Output) []string {
	var lines []string
	for _, f := range out.Functions {
		if f.OldSize == 0 {
			lines = append(lines, fmt.Sprintf("adds %s (%s, %d bytes)", f.Name, f.Object, f.NewSize))
			continue
		}
		lines = append(lines, fmt.Sprintf("replaces %s (%s, %d bytes by %d)", f.Name, f.Object, f.OldSize, f.NewSize))
	}
	proven := 0
	for _, p := range out.Touched {
		proven += len(p.Before.Functions)
	}
	lines = append(lines, fmt.Sprintf("the %d functions of %d rebuilt objects are the binary's, byte for byte where no address stands", proven, len(out.Touched)),
		fmt.Sprintf("image: %d bytes in memory, %d relocations for the agent", out.File.Size(), len(out.File.Relocs)))
	for _, m := range out.File.Imports {
		lines = append(lines, strings.TrimSuffix("imports "+m.Name+"@"+m.Version, "@")+", which the binary does not; each process looks it up")
	}
	for _, n := range out.Notices {
		lines = append(lines, "note: "+n)
	}
	return lines
}

func readBinary(path string) (*object.Binary, string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, "", err
	}
	b, err := object.ReadBinary(filepath.Base(path), data)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data)
	return b, hex.EncodeToString(sum[:]), nil
}

// readFile reads a regular file of bounded size.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > object.MaxBytes {
		return nil, fmt.Errorf("%s is not a regular file, or too large", path)
	}
	return os.ReadFile(path)
}
