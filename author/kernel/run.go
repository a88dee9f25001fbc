package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
	"livemend.dev/livemend/patch"
)

// part is one object in both builds.
type part struct {
	unit          unit
	before, after *object.Object
	raw           *relocatable.File // after
	rawOf         []*relocatable.Section
	old           *relocatable.File // before
	oldOf         []*relocatable.Section
	pair          *objdiff.Pair // of views
	helpers       map[string]bool
	proof         *proof
}

func (b *build) run(ctx context.Context) (*Result, error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	diff, err := os.ReadFile(b.Diff)
	if err != nil {
		return nil, err
	}
	sources, headers, err := touched(diff)
	if err != nil {
		return nil, err
	}
	p, err := b.fetch(ctx)
	if err != nil {
		return nil, err
	}
	b.inputs = append(b.inputs, patch.Input{Name: "fix " + filepath.Base(b.Diff), SHA256: sumOf(diff)})
	config, err := os.ReadFile(filepath.Join(p.headers, ".config"))
	if err != nil {
		return nil, err
	}
	t, err := b.toolsFor(ctx, config)
	if err != nil {
		return nil, err
	}
	// What a header that reaches too far changes is still looked for in the sources
	// of the fix, so that the answer has all reasons.
	more, far := reached(p.source, headers)
	if far != nil && len(refusal.All(far)) == 0 {
		return nil, far
	}
	for _, name := range more {
		if !slices.Contains(sources, name) {
			sources = append(sources, name)
		}
	}
	parts, err := b.compile(ctx, p, t, sources)
	if err != nil {
		return nil, err
	}
	image, err := b.vmlinux(ctx, p)
	if err != nil {
		return nil, err
	}
	kernel, err := readVmlinux(image)
	if err != nil {
		return nil, err
	}
	b.inputs = append(b.inputs, patch.Input{Name: "vmlinux " + b.Release, SHA256: sumOf(image)})
	goods, err := b.pack(ctx, p, kernel, parts)
	if err := errors.Join(far, err); err != nil {
		return nil, err
	}
	module, err := b.link(ctx, p, t, goods, parts)
	if err != nil {
		return nil, err
	}
	return b.finish(module, kernel, goods, t)
}

// lock keeps runs in one work folder apart.
func (b *build) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(b.Work, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(b.Work, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(100 * time.Millisecond): // a lock of a file tells nobody
		}
	}
}

// compile builds the objects of the sources before and after the fix and returns
// those that differ or may.
func (b *build) compile(ctx context.Context, p *packages, t *tools, sources []string) ([]*part, error) {
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

// compareExports refuses changes of what modules may use.
func compareExports(p *objdiff.Pair, old, now *relocatable.File) {
	list := func(f *relocatable.File) []string {
		var names []string
		for _, s := range f.Sections {
			if exports(s.Name) && s.Type != elf.SHT_RELA {
				names = append(names, s.Name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	was, is := list(old), list(now)
	for _, name := range slices.Concat(was, is) {
		if slices.Contains(was, name) != slices.Contains(is, name) {
			p.Refusals = append(p.Refusals, refusal.New(refusal.Symbol, p.Path+" "+strings.TrimLeft(name, "_"), "what is exported to modules changed; the running kernel's list stays as it is"))
		}
	}
}

// pack proves the objects, has the change reviewed and takes the new code out.
func (b *build) pack(ctx context.Context, p *packages, kernel *stock, parts []*part) (*cargo, error) {
	exported, err := exportsOf(filepath.Join(p.headers, "Module.symvers"))
	if err != nil {
		return nil, err
	}
	goods := newCargo(kernel, exported)
	modules := map[string]*stock{}
	var refused []error
	var pairs []*objdiff.Pair
	var changed []*part
	for _, x := range parts {
		s := kernel
		if x.unit.module != "" {
			if s = modules[x.unit.module]; s == nil {
				data, err := b.moduleFile(ctx, p, x.unit.module)
				if errors.Is(err, fs.ErrNotExist) {
					b.note("%s is left out: %v", x.unit.path, err)
					continue
				}
				if err != nil {
					return nil, err
				}
				if s, err = readModule(x.unit.module, data); err != nil {
					return nil, err
				}
				modules[x.unit.module] = s
				b.inputs = append(b.inputs, patch.Input{Name: "module " + x.unit.module, SHA256: sumOf(data)})
			}
		}
		if !x.pair.Touched() {
			b.note("%s: nothing in it changed", x.unit.path)
			continue
		}
		for _, r := range x.pair.Refusals {
			refused = append(refused, reworded(x, r))
		}
		if len(x.pair.Changed)+len(x.pair.New) == 0 {
			continue
		}
		var wrong []error
		x.proof, wrong = prove(s, x.before)
		refused = append(refused, wrong...)
		pairs = append(pairs, x.pair)
		changed = append(changed, x)
		b.notices = append(b.notices, x.pair.Notices...)
		if len(wrong) == 0 {
			b.note("the %d functions of %s are the ones of the stock %s, byte for byte where no address stands", x.proof.proven, x.unit.path, s.object)
		}
	}
	for _, err := range author.Review(pairs, b.Waivers) {
		if r := refusal.All(err); len(r) == 1 {
			err = reworded(nil, r[0])
		}
		refused = append(refused, err)
	}
	if len(refused) > 0 {
		return nil, once(refused)
	}
	for _, x := range changed {
		c := &carrier{cargo: goods, pair: x.pair, obj: x.after, raw: x.raw, rawOf: x.rawOf, proof: x.proof, helpers: x.helpers}
		refused = append(refused, c.carry()...)
		for _, name := range slices.Sorted(maps.Keys(c.off)) {
			b.note("%s: tracepoint %s is silent in the new code", x.unit.path, name)
		}
	}
	if len(goods.changes) == 0 && len(refused) == 0 {
		refused = append(refused, refusal.New(refusal.Nothing, filepath.Base(b.Diff), "no function that runs in the kernel changed"))
	}
	return goods, once(refused)
}

// once joins refusals, each once.
func once(refused []error) error {
	var out []error
	seen := map[string]bool{}
	for _, r := range refusal.All(errors.Join(refused...)) {
		if !seen[r.Error()] {
			seen[r.Error()] = true
			out = append(out, r)
		}
	}
	for _, err := range refused {
		if len(refusal.All(err)) == 0 {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// reworded says for kernels what package objdiff says for libraries.
func reworded(x *part, r *refusal.Error) *refusal.Error {
	out := *r
	out.Reason = strings.NewReplacer(
		"a running process", "a running kernel", "running threads", "a running kernel",
		"the list of functions that run when the library is loaded or unloaded changed", "code or data of start-up or end changed, which a running kernel has behind itself",
		"it runs when the library is loaded", "it runs when the kernel starts",
	).Replace(r.Reason)
	if r.Kind != refusal.Sections || x == nil {
		return &out
	}
	name := strings.TrimPrefix(r.Place, x.unit.path+" ")
	for _, f := range x.after.Functions {
		if f.Name == name && !f.Alone {
			out.Reason = "it stands in section " + f.Section.Name + " with other functions of its kind (entry code, code without tracing, the scheduler), where it cannot be told apart or taken over"
		}
	}
	return &out
}

// exportsOf reads which names modules may use, and what exports them. Names in a
// namespace count as not exported: a module would have to ask for them.
func exportsOf(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(parts) < 4 || len(parts) > 4 && parts[4] != "" {
			continue
		}
		by := strings.ReplaceAll(filepath.Base(parts[2]), "-", "_")
		out[parts[1]] = by
	}
	if len(out) == 0 {
		return nil, errors.New("the headers package lists no exported names")
	}
	return out, nil
}

// finish describes the module.
func (b *build) finish(module []byte, kernel *stock, goods *cargo, t *tools) (*Result, error) {
	md := &patch.Metadata{
		ID: b.ID, Kind: patch.Kernel, Level: b.Level, Fixes: b.Fixes, Supersedes: b.Supersedes, Requires: b.Requires, Description: b.Description,
		Target:     patch.Target{BuildID: kernel.buildID, Arch: "amd64", Release: b.Release},
		Provenance: patch.Provenance{Builder: b.Builder, Compiler: t.version, Inputs: b.inputs},
	}
	for _, w := range b.Waivers {
		md.Provenance.Waivers = append(md.Provenance.Waivers, w.String())
	}
	var account []string
	for _, c := range goods.changes {
		name := c.name
		if c.object != klp.Vmlinux {
			name += " [" + c.object + "]"
		}
		md.Functions = append(md.Functions, patch.Function{Name: name, Size: c.size})
		account = append(account, fmt.Sprintf("replaces %s by %d bytes", name, c.size))
	}
	if err := md.Check(); err != nil {
		return nil, err
	}
	if _, err := patch.ParseCustom(md.Custom()); err != nil {
		return nil, err
	}
	account = append(account, fmt.Sprintf("%d references are resolved by the kernel's livepatch code", len(goods.refs)))
	for _, n := range b.notices {
		account = append(account, "note: "+n)
	}
	for _, w := range md.Provenance.Waivers {
		account = append(account, "waived: "+w)
	}
	return &Result{Module: module, Metadata: md, Account: account}, nil
}
