package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
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
		if path.Ext(name) == ".S" {
			far = errors.Join(far, refusal.New(refusal.Sections, name, "it includes a changed header, and changes of assembler cannot be followed into objects"))
		}
	}
	more = slices.DeleteFunc(more, func(name string) bool { return path.Ext(name) != ".c" || slices.Contains(sources, name) })
	parts, err := b.compile(ctx, p, t, sources, more)
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
