package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"livemend.dev/livemend/author/refusal"
)

// buildFolder is where builds take place in the root, as on the distribution's
// builders when they check that builds can be repeated.
const buildFolder = "/build/reproducible-path"

// targets of debian/rules; some packages link again while they install.
var targets = []string{"build-arch", "binary-arch"}

// twin rebuilds the stock binary from one candidate after the other until one is
// like it, and finds the link that made it. The facts name the twin's file,
// the stock binary, the target of debian/rules and the place of the link.
func (d *driver) twin(ctx context.Context, all []states, stock string) (states, map[string]string, error) {
	var unlike error
	for i, candidate := range all {
		name := "rebuild"
		if i > 0 {
			name += "-" + strconv.Itoa(i)
			d.say("%s: another state of the source", name)
		}
		link, err := d.rebuild(ctx, name, candidate.before, stock)
		if err != nil && candidate.guess && ctx.Err() == nil {
			d.say("%s: that state cannot be built", name)
			continue
		}
		if err != nil {
			return states{}, nil, err
		}
		if why := link["unlike"]; why != "" {
			if unlike == nil {
				unlike = &StageError{Stage: name, Log: d.path("logs", name+".log"), Err: refusal.New(refusal.Foreign, d.Library, why),
					Advice: "With another root (--root) that has the builder's compiler it may succeed."}
			}
			continue
		}
		if stock == "" {
			link["stock"] = d.path(link["rebuilt"])
			d.notices = append(d.notices, "no package with "+d.Library+" in this state can be had: the patch is for the binary as it was rebuilt here, and fits others only if their build-id is the same")
		} else {
			link["stock"] = stock
		}
		d.notices = append(d.notices, "the rebuild of "+filepath.Base(link["stock"])+" is "+link["likeness"])
		return candidate, link, nil
	}
	return states{}, nil, unlike
}

// rebuild builds one tree as the distribution does. Without a stock binary the
// one in the packages that it makes stands in. The fact "unlike" says why the
// tree is not what the stock binary was made from.
func (d *driver) rebuild(ctx context.Context, name string, old tree, stock string) (map[string]string, error) {
	stockSum := "none"
	if stock != "" {
		var err error
		if stockSum, err = digestPath(stock); err != nil {
			return nil, err
		}
	}
	inputs, err := d.treeInputs(old)
	if err != nil {
		return nil, err
	}
	return d.do(ctx, job{
		name: name, inputs: digest(inputs, stockSum, builders, joined(headerFolders)),
		advice: "The log has the compiler's words.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := d.prepare(ctx, log, name, old); err != nil {
				return nil, nil, err
			}
			if stock == "" {
				return d.rebuildAlone(ctx, log, name, old)
			}
			var facts map[string]string
			for _, target := range targets {
				links, err := d.compile(ctx, log, name, target, "")
				if err != nil {
					return nil, nil, err
				}
				if facts, err = d.match(stock, links, target); err != nil {
					return nil, nil, err
				}
				if twin := facts["twin"]; twin != "" {
					return facts, []string{twin}, nil
				}
			}
			return facts, nil, nil
		},
	})
}

// rebuildAlone takes the stock binary from the packages that the build makes.
func (d *driver) rebuildAlone(ctx context.Context, log io.Writer, name string, old tree) (map[string]string, []string, error) {
	target := targets[len(targets)-1]
	links, err := d.compile(ctx, log, name, target, "")
	if err != nil {
		return nil, nil, err
	}
	for _, pkg := range old.dsc.packages {
		made := filepath.Join(d.path("build"), path.Base(d.treePath()), "debian", pkg)
		if _, err := os.Stat(made); err != nil {
			continue
		}
		found, err := findBinary(made, d.Library)
		if err != nil {
			return nil, nil, err
		}
		if found == "" {
			continue
		}
		data, err := os.ReadFile(found)
		if err != nil {
			return nil, nil, err
		}
		keep := filepath.Join("stock", "rebuilt-"+filepath.Base(found))
		if err := writeFile(d.path(keep), data); err != nil {
			return nil, nil, err
		}
		facts, err := d.match(d.path(keep), links, target)
		if err != nil {
			return nil, nil, err
		}
		if why := facts["unlike"]; why != "" {
			return nil, nil, refusal.New(refusal.Foreign, d.Library, why)
		}
		facts["rebuilt"] = keep
		return facts, []string{keep, facts["twin"]}, nil
	}
	return nil, nil, fmt.Errorf("the build made no package with %s", d.Library)
}

// match finds the link that made the stock binary and keeps its output as the
// twin, or says why there is none.
func (d *driver) match(stock string, links []*recorded, target string) (map[string]string, error) {
	file, err := openELF(stock)
	if err != nil {
		return nil, err
	}
	best, is, why, err := d.closest(file, links)
	if err != nil {
		return nil, err
	}
	if best == nil {
		return map[string]string{"unlike": why}, nil
	}
	d.say("rebuild: %s is %s", path.Base(best.out), is)
	twin := filepath.Join("stock", "twin-"+filepath.Base(stock))
	return map[string]string{"twin": twin, "target": target, "place": best.place(), "likeness": is.String()}, d.keepTwin(file, best, d.path(twin))
}

// closest finds the recorded output that is most like the stock binary; nil
// and the reason when none will do.
func (d *driver) closest(stock *elfFile, links []*recorded) (best *recorded, is likeness, why string, err error) {
	why = "the build linked no file of this name"
	for _, r := range links {
		rebuilt, err := openELF(r.output())
		if err != nil {
			return nil, unlike, "", err
		}
		like, text := compare(stock, rebuilt)
		if like == unlike && best == nil {
			why = "rebuilt as " + r.out + " it is not the stock binary: " + text + "; another compiler, other flags or other sources made that"
		}
		if like > unlike && like >= is {
			best, is = r, like
		}
	}
	return best, is, why, nil
}

func (d *driver) keepTwin(stock *elfFile, best *recorded, file string) error {
	rebuilt, err := openELF(best.named())
	if err != nil {
		return err
	}
	if is, why := compare(stock, rebuilt); is == unlike {
		return errors.New("linked again with the names of local symbols, the library differs: " + why)
	}
	data, err := renamed(stock, rebuilt)
	if err != nil {
		return err
	}
	return writeFile(file, data)
}

// objects builds with sections and returns the folder of the objects of the
// library.
func (d *driver) objects(ctx context.Context, name string, t tree, link map[string]string) (string, error) {
	folder, linked := filepath.Join("objects", name), linkedFile(name)
	inputs, err := d.treeInputs(t)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(d.treeOf(name)); err != nil {
		d.state.forget(name) // pinned needs the tree too
	}
	_, err = d.do(ctx, job{
		name: name, inputs: digest(inputs, link["target"], link["place"], linked),
		advice: "The log has the compiler's words.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := os.RemoveAll(d.treeOf(name)); err != nil {
				return nil, nil, err
			}
			if err := d.prepare(ctx, log, name, t); err != nil {
				return nil, nil, err
			}
			links, err := d.compile(ctx, log, name, link["target"], sectionFlags)
			if err != nil {
				return nil, nil, err
			}
			same := sameLink(links, link["place"])
			if same == nil {
				return nil, nil, fmt.Errorf("this build does not link %s as the first one did", link["place"])
			}
			if err := clearFolder(d.path(folder)); err != nil {
				return nil, nil, err
			}
			count, err := same.extract(d.path(folder), d.treePath())
			if err != nil {
				return nil, nil, err
			}
			if count == 0 {
				return nil, nil, errors.New("the linker took no object of this build")
			}
			d.say("%s: %d objects go into %s", name, count, path.Base(same.out))
			output, err := os.ReadFile(same.output())
			if err != nil {
				return nil, nil, err
			}
			if err := writeFile(d.path(linked), output); err != nil {
				return nil, nil, err
			}
			return nil, []string{folder, linked}, d.keepTree(name)
		},
	})
	return d.path(folder), err
}

// linkedFile is what the objects of a build were linked into.
func linkedFile(name string) string { return filepath.Join("objects", name+".linked") }

// treePath is where a source is built, in the root. It is the same for all.
func (d *driver) treePath() string { return path.Join(buildFolder, treeName(d.Package, d.From)) }

// treeInputs is everything that a build of the tree depends on beside the root.
func (d *driver) treeInputs(t tree) (string, error) {
	own, err := t.inputs()
	return digest(d.sources, own, d.From, d.Library, d.Root, buildScript, rootScript, linkerScript, compilerScript), err
}

// prepare lays out a state of the source, and once per run installs what builds
// need.
func (d *driver) prepare(ctx context.Context, log io.Writer, layer string, t tree) error {
	if err := d.dependencies(ctx, log, t.dsc); err != nil {
		return err
	}
	return d.lay(ctx, log, layer, t)
}

// lay unpacks a state of the source where it is built; its patches are not
// applied yet.
func (d *driver) lay(ctx context.Context, log io.Writer, layer string, t tree) error {
	if err := errors.Join(clearFolder(d.path("build")), clearFolder(d.path("links")), clearFolder(d.path("commands"))); err != nil {
		return err
	}
	var args []string
	if t.series != nil {
		args = append(args, "--skip-patches")
	}
	if err := d.unpack(ctx, log, layer, t.dsc, args...); err != nil {
		return err
	}
	source, err := os.OpenRoot(d.path("build", path.Base(d.treePath())))
	if err != nil {
		return err
	}
	return errors.Join(t.adjust(source, d.From), source.Close())
}

// dependencies installs what the builds of a source need, and the first time
// removes what they could only find by chance.
func (d *driver) dependencies(ctx context.Context, log io.Writer, source *dsc) error {
	description := describedAs(source)
	if d.deps[description] {
		return nil
	}
	d.say("build dependencies ...")
	if err := d.apt(ctx, log, inside, "apt-get", "build-dep", "--arch-only", description); err != nil {
		return fmt.Errorf("installing the build dependencies: %w", err)
	}
	if len(d.deps) == 0 {
		if err := d.removeStrangers(ctx, log, source); err != nil {
			return err
		}
	}
	d.deps[description] = true
	return nil
}

// tools are what the driver itself needs in the root: one unpacks sources, the
// other spares compiling again what did not change.
var tools = []string{"dpkg-dev", "ccache"}

// unpack unpacks a source where it is built.
func (d *driver) unpack(ctx context.Context, log io.Writer, layer string, source *dsc, options ...string) error {
	if !d.equipped {
		if err := d.apt(ctx, log, inside, "apt-get", append([]string{"install"}, tools...)...); err != nil {
			return fmt.Errorf("installing %s: %w", strings.Join(tools, " and "), err)
		}
		d.equipped = true
	}
	args := append([]string{"/usr/bin/dpkg-source", "--no-check"}, options...)
	if err := d.root.command(ctx, log, layer, append(args, "-x", describedAs(source), d.treePath())...); err != nil {
		return fmt.Errorf("unpacking the source: %w", err)
	}
	return nil
}

// describedAs is a source's description as the root sees it.
func describedAs(source *dsc) string {
	return inside + "/source/" + dscName(source.source, source.version)
}

// compile builds the unpacked source and returns what was linked.
func (d *driver) compile(ctx context.Context, log io.Writer, layer, target, flags string) ([]*recorded, error) {
	if err := errors.Join(writeFile(d.path("ld"), []byte(recorder(d.Library))), writeFile(d.path("cc"), []byte(compilerScript))); err != nil {
		return nil, err
	}
	err := d.root.command(ctx, log, layer, "/bin/sh", "-c", buildScript, "livemend-build", d.treePath(), target, strconv.Itoa(d.Jobs), flags)
	if err != nil {
		return nil, fmt.Errorf("building: %w", err)
	}
	return readLinks(d.path("links"))
}
