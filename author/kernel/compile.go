package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
)

// compile builds the objects of the sources before and after the fix and returns
// those that differ or may. Of the sources that only include a changed header, those
// that do not compile as they are with the distribution's configuration are no part
// of the kernel.
func (b *build) compile(ctx context.Context, p *packages, t *tools, sources, including []string) ([]*part, error) {
	// A tree of links: what is changed in it is written anew and stays out of the
	// prepared source.
	tree := filepath.Join(b.Work, "tree")
	if err := os.RemoveAll(tree); err != nil {
		return nil, err
	}
	defer os.RemoveAll(tree)
	if _, err := run(ctx, b.Work, "", "cp", "-al", p.source, tree); err != nil {
		return nil, err
	}
	var objects []string
	for _, name := range sources {
		if _, err := os.Stat(filepath.Join(tree, name)); err != nil {
			return nil, fmt.Errorf("the source of this version has no %s: %w", name, err)
		}
		objects = append(objects, strings.TrimSuffix(name, ".c")+".o")
	}
	began := time.Now()
	for _, name := range including {
		object := strings.TrimSuffix(name, ".c") + ".o"
		if err := b.make(ctx, t, tree, filepath.Join(b.Work, "compile.log"), object); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			b.note("%s is left out: it does not compile with the distribution's configuration", object)
			continue
		}
		objects = append(objects, object)
	}
	before, err := b.objects(ctx, t, tree, objects, sectionFlags)
	if err != nil {
		return nil, fmt.Errorf("compiling the source as it is: %w", err)
	}
	fix := []string{"patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--batch", "-i", b.absolute(b.Diff)}
	if _, err := run(ctx, tree, "", fix...); err != nil {
		return nil, fmt.Errorf("the fix does not apply to the source of version %s: %w", p.version, err)
	}
	after, err := b.objects(ctx, t, tree, objects, sectionFlags)
	if err != nil {
		return nil, fmt.Errorf("compiling the source with the fix: %w", err)
	}
	var parts []*part
	var again []string
	for _, name := range objects {
		x, err := newPart(tree, name, before[name], after[name])
		if err != nil {
			return nil, err
		}
		parts = append(parts, x)
		if len(x.pair.Changed) > 1 {
			again = append(again, name)
		}
	}
	pinned, err := b.pinned(ctx, t, tree, again, append(fix, "-R"))
	if err != nil {
		return nil, err
	}
	for _, x := range parts {
		if err := x.compare(pinned); err != nil {
			return nil, err
		}
	}
	b.say("compile: %d objects, before and after, in %s", len(objects), time.Since(began).Round(100*time.Millisecond))
	return parts, nil
}

// objects compiles objects in a tree and returns their bytes by name.
func (b *build) objects(ctx context.Context, t *tools, tree string, names []string, flags string) (map[string][]byte, error) {
	if err := b.make(ctx, t, tree, filepath.Join(b.Work, "compile.log"), append(slices.Clone(names), "KCFLAGS="+flags)...); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, name := range names {
		if err := b.switches(ctx, tree, name); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			return nil, err
		}
		out[name] = data
	}
	return out, nil
}

// switches has the jumps that are switched at run time written as the kernel has
// them at first, where kbuild leaves that for when all is linked.
func (b *build) switches(ctx context.Context, tree, name string) error {
	u, err := unitOf(tree, name)
	if err != nil || u.flags != "" {
		return err
	}
	_, err = run(ctx, tree, filepath.Join(b.Work, "objtool.log"), filepath.Join(tree, "tools/objtool/objtool"), "--hacks=jump_label", filepath.Join(tree, name))
	return err
}

// onePinned makes the compiler take every source line for the first.
const onePinned = sectionFlags + " -Wno-builtin-macro-redefined -D__LINE__=1 -Wno-error"

// pinned compiles the objects in which several functions changed again, with one
// number for all source lines, so that functions that differ in nothing else can be
// told. Objects that do not compile so, because their code makes names of line
// numbers, are left out.
func (b *build) pinned(ctx context.Context, t *tools, tree string, names []string, revert []string) ([]*objdiff.Pair, error) {
	if len(names) == 0 {
		return nil, nil
	}
	is, err := b.objects(ctx, t, tree, names, onePinned)
	if err != nil {
		return nil, ctx.Err()
	}
	if _, err := run(ctx, tree, "", revert...); err != nil {
		return nil, err
	}
	was, err := b.objects(ctx, t, tree, names, onePinned)
	if err != nil {
		return nil, ctx.Err()
	}
	var before, after []*object.Object
	for _, name := range names {
		o, err := object.Read(name, was[name])
		if err != nil {
			return nil, err
		}
		n, err := object.Read(name, is[name])
		if err != nil {
			return nil, err
		}
		before, after = append(before, view(o)), append(after, view(n))
	}
	return objdiff.Compare(before, after), nil
}

func (b *build) absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

func newPart(tree, name string, before, after []byte) (*part, error) {
	x := &part{}
	var err error
	if x.unit, err = unitOf(tree, name); err != nil {
		return nil, err
	}
	if x.before, err = object.Read(name, before); err != nil {
		return nil, err
	}
	if x.after, err = object.Read(name, after); err != nil {
		return nil, err
	}
	if x.raw, x.rawOf, err = relocatable.Numbered(after); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if x.old, x.oldOf, err = relocatable.Numbered(before); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return x, x.compare(nil)
}

// compare finds what changed; pinned are objects without numbers of source lines.
func (x *part) compare(pinned []*objdiff.Pair) error {
	x.pair = objdiff.ComparePinned([]*object.Object{view(x.before)}, []*object.Object{view(x.after)}, pinned)[0]
	was, err := annexes(x.before, x.old, x.oldOf)
	if err != nil {
		return refusal.New(refusal.Undecodable, x.unit.path, err.Error())
	}
	is, err := annexes(x.after, x.raw, x.rawOf)
	if err != nil {
		return refusal.New(refusal.Undecodable, x.unit.path, err.Error())
	}
	compareAnnexes(x.pair, was, is)
	compareExports(x.pair, x.old, x.raw)
	x.helpers = pullCallers(x.pair)
	return nil
}
