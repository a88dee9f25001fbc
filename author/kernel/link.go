package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
	"livemend.dev/livemend/patch/module"
)

// link makes the module: the new code and its glue go through the kernel's own
// build of modules, and then get their livepatch relocations.
func (b *build) link(ctx context.Context, p *packages, t *tools, goods *cargo, parts []*part) ([]byte, error) {
	dir := filepath.Join(b.Work, "module")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	code, err := goods.file.Write()
	if err != nil {
		return nil, err
	}
	name := moduleName(b.ID)
	for file, text := range map[string]string{
		"code.o":      string(code),
		".code.o.cmd": "cmd_" + filepath.Join(dir, "code.o") + " := livemend\n",
		"glue.c":      glue(goods.changes),
		"Makefile":    "obj-m := " + name + ".o\n" + name + "-y := glue.o code.o\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if flags := checks(parts); flags != nil {
		args := append([]string{filepath.Join(p.source, "tools/objtool/objtool")}, append(flags, filepath.Join(dir, "code.o"))...)
		if _, err := run(ctx, p.source, filepath.Join(b.Work, "objtool.log"), args...); err != nil {
			return nil, fmt.Errorf("the kernel's checker of code refuses the new code, which is a fault of the author tools; nothing was written: %w", err)
		}
	}
	// References to what is not exported are warnings there; they are looked at
	// below. Type information of modules would need the whole kernel image.
	if err := b.make(ctx, t, p.source, filepath.Join(b.Work, "module.log"), "M="+dir, "KBUILD_MODPOST_WARN=1", "CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-g0", "modules"); err != nil {
		return nil, fmt.Errorf("linking the module: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, name+".ko"))
	if err != nil {
		return nil, err
	}
	out, err := goods.convert(data)
	if err != nil {
		return nil, err
	}
	m, err := module.Read(out)
	if err != nil {
		return nil, fmt.Errorf("the finished module does not pass its reader's check, which is a fault of the author tools; nothing was written: %w", err)
	}
	if m.Release != b.Release || !m.Livepatch || m.Name != name || len(m.Depends) > 0 {
		return nil, fmt.Errorf("the finished module says that it is %s for %s and needs %v, which is a fault of the author tools; nothing was written", m.Name, m.Release, m.Depends)
	}
	return out, nil
}

// checks returns the flags for objtool, nil when the kernel's build of modules
// runs it by itself.
func checks(parts []*part) []string {
	for _, x := range parts {
		if x.unit.flags == "" {
			continue
		}
		flags := strings.Fields(x.unit.flags)
		if !slices.Contains(flags, "--module") {
			flags = append(flags, "--module")
		}
		return flags
	}
	return nil
}

// convert gives a module its livepatch relocations and checks that nothing is
// left that no kernel could resolve.
func (c *cargo) convert(data []byte) ([]byte, error) {
	f, err := relocatable.Read(data)
	if err != nil {
		return nil, err
	}
	if err := klp.Convert(f, c.refs); err != nil {
		return nil, err
	}
	for _, y := range f.Symbols {
		if y.Undefined() && y.Name != "" && c.exports[y.Name] == "" {
			return nil, refusal.New(refusal.Import, y.Name, "the module refers to it, and neither does the kernel export it nor is it known where it lies")
		}
	}
	return f.Write()
}
