package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// side says which patches of a source a build has.
type side int

const (
	asIs      side = iota
	beforeFix      // up to the fixes
	withFix        // up to and with them
)

// tree is one state of the source.
type tree struct {
	dsc  *dsc
	side side
}

// targets of debian/rules; some packages link again while they install.
var targets = []string{"build-arch", "binary-arch"}

// twin rebuilds the stock binary and finds the link that made it. The facts
// name the twin's file, the target of debian/rules and the place of the link.
func (d *driver) twin(ctx context.Context, old tree, binary string) (map[string]string, error) {
	stockSum, err := digestPath(binary)
	if err != nil {
		return nil, err
	}
	facts, err := d.do(ctx, job{
		name: "rebuild", inputs: digest(d.treeInputs(old), stockSum),
		advice: "The proof that this build speaks about the stock binary failed or the build itself did; the log has the compiler's words. With another root (--root) that has the builder's compiler it may succeed.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			stock, err := openELF(binary)
			if err != nil {
				return nil, nil, err
			}
			if err := d.prepare(ctx, log, "rebuild", old); err != nil {
				return nil, nil, err
			}
			var why error
			for _, target := range targets {
				links, err := d.compile(ctx, log, "rebuild", target, "")
				if err != nil {
					return nil, nil, err
				}
				best, is, text, err := d.closest(stock, links)
				if err != nil {
					return nil, nil, err
				}
				if best == nil {
					why = refusal.New(refusal.Foreign, d.Library, text)
					continue
				}
				d.say("rebuild: %s is %s", path.Base(best.out), is)
				file := filepath.Join("stock", "twin-"+filepath.Base(binary))
				return map[string]string{"twin": file, "target": target, "place": best.place(), "likeness": is.String()},
					[]string{file}, d.keepTwin(stock, best, d.path(file))
			}
			return nil, nil, why
		},
	})
	if err == nil {
		d.notices = append(d.notices, "the rebuild of "+filepath.Base(binary)+" is "+facts["likeness"])
	}
	return facts, err
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
	_, err := d.do(ctx, job{
		name: name, inputs: digest(d.treeInputs(t), link["target"], link["place"], linked),
		advice: "The log has the compiler's words.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
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
			return nil, []string{folder, linked}, writeFile(d.path(linked), output)
		},
	})
	return d.path(folder), err
}

// linkedFile is what the objects of a build were linked into.
func linkedFile(name string) string { return filepath.Join("objects", name+".linked") }

// treePath is where a source is built, in the root. It is the same for all.
func (d *driver) treePath() string { return path.Join(buildFolder, treeName(d.Package, d.From)) }

// treeInputs is everything that a build depends on beside the root.
func (d *driver) treeInputs(t tree) string {
	return digest(d.sources, t.dsc.sum, strconv.Itoa(int(t.side)), strings.Join(d.Patches, " "), d.From, d.Library, d.Root,
		buildScript, rootScript, linkerScript)
}

// prepare unpacks a state of the source, and once per run installs what builds
// need.
func (d *driver) prepare(ctx context.Context, log io.Writer, layer string, t tree) error {
	if err := errors.Join(clearFolder(d.path("build")), clearFolder(d.path("links"))); err != nil {
		return err
	}
	description := inside + "/source/" + dscName(t.dsc.source, t.dsc.version)
	if !d.deps[description] {
		d.say("build dependencies ...")
		if err := d.apt(ctx, log, inside, "apt-get", "build-dep", "--arch-only", description); err != nil {
			return fmt.Errorf("installing the build dependencies: %w", err)
		}
		d.deps[description] = true
	}
	unpack := []string{"/usr/bin/dpkg-source", "--no-check", "-x"}
	if t.side != asIs {
		unpack = append(unpack, "--skip-patches")
	}
	if err := d.root.command(ctx, log, layer, append(unpack, description, d.treePath())...); err != nil {
		return fmt.Errorf("unpacking the source: %w", err)
	}
	return d.adjust(t)
}

// adjust cuts the series and the changelog of an unpacked source. Links in it
// do not lead out of it.
func (d *driver) adjust(t tree) error {
	source, err := os.OpenRoot(d.path("build", path.Base(d.treePath())))
	if err != nil {
		return err
	}
	return errors.Join(d.adjustIn(source, t), source.Close())
}

func (d *driver) adjustIn(source *os.Root, t tree) error {
	const changelog, patches = "debian/changelog", "debian/patches/series"
	if t.dsc.version != d.From {
		text, err := source.ReadFile(changelog)
		if err != nil {
			return err
		}
		own, err := trimChangelog(string(text), d.From)
		if err != nil {
			return err
		}
		if err := source.WriteFile(changelog, []byte(own), 0o644); err != nil {
			return err
		}
	}
	if t.side == asIs {
		return nil
	}
	text, err := source.ReadFile(patches)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the source package keeps no patches in debian/patches; give two versions instead of --fix debian/patches/NAME")
	}
	if err != nil {
		return err
	}
	before, after, err := parseSeries(string(text)).cut(d.Patches)
	if err != nil {
		return err
	}
	if t.side == beforeFix {
		after = before
	}
	return source.WriteFile(patches, []byte(after), 0o644)
}

// compile builds the unpacked source and returns what was linked.
func (d *driver) compile(ctx context.Context, log io.Writer, layer, target, flags string) ([]*recorded, error) {
	if err := writeFile(d.path("ld"), []byte(recorder(d.Library))); err != nil {
		return nil, err
	}
	err := d.root.command(ctx, log, layer, "/bin/sh", "-c", buildScript, "livemend-build", d.treePath(), target, strconv.Itoa(d.Jobs), flags)
	if err != nil {
		return nil, fmt.Errorf("building: %w", err)
	}
	return readLinks(d.path("links"))
}
