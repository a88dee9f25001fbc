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
	"strings"
)

// tree is one state of the source.
type tree struct {
	dsc    *dsc
	series *string           // content of debian/patches/series; nil to leave it as it is
	extra  map[string]string // patches that the source does not bring: name to file
}

// patchesOf is where a source's own patches are once patches has unpacked them.
func (d *driver) patchesOf(source *dsc) string { return d.path("patches", noEpoch(source.version)) }

// patches unpacks a source's patches and returns their folder and their order.
func (d *driver) patches(ctx context.Context, source *dsc) (string, series, error) {
	folder := filepath.Join("patches", noEpoch(source.version))
	_, err := d.do(ctx, job{
		name: "patches-" + noEpoch(source.version), inputs: digest(source.sum, changelogCopy),
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			if err := errors.Join(clearFolder(d.path("build")), clearFolder(d.path(folder))); err != nil {
				return nil, nil, err
			}
			if err := d.unpack(ctx, log, depsLayer, source, "--skip-patches"); err != nil {
				return nil, nil, err
			}
			tree, err := os.OpenRoot(d.path("build", path.Base(d.treePath())))
			if err != nil {
				return nil, nil, err
			}
			err = copyPatches(tree, d.path(folder))
			return nil, []string{folder}, errors.Join(err, tree.Close(), clearFolder(d.path("build")))
		},
	})
	if err != nil {
		return "", series{}, err
	}
	text, err := os.ReadFile(filepath.Join(d.patchesOf(source), "series"))
	return d.patchesOf(source), parseSeries(string(text)), err
}

// changelogCopy is the name of the changelog beside patches.
const changelogCopy = ".changelog"

// copyPatches copies debian/patches and the changelog out of an unpacked source.
// A source without patches gives an empty series.
func copyPatches(source *os.Root, to string) error {
	const from = "debian/patches"
	tree := source.FS()
	changelog, err := fs.ReadFile(tree, "debian/changelog")
	if err != nil {
		return err
	}
	if err := errors.Join(writeFile(filepath.Join(to, "series"), nil), writeFile(filepath.Join(to, changelogCopy), changelog)); err != nil {
		return err
	}
	err = fs.WalkDir(tree, from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(to, strings.TrimPrefix(name, from+"/")), data)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inputs is everything that a build of the tree depends on beside the root.
func (t tree) inputs() (string, error) {
	parts := []string{t.dsc.sum}
	if t.series != nil {
		parts = append(parts, "series", *t.series)
		for line := range strings.Lines(*t.series) {
			if file := t.extra[patchIn(line)]; file != "" {
				sum, err := digestPath(file)
				if err != nil {
					return "", err
				}
				parts = append(parts, sum)
			}
		}
	}
	return digest(parts...), nil
}

// adjust makes an unpacked source the tree: its series, and a changelog that
// ends with the version that servers run. Links in the source do not lead out of
// it.
func (t tree) adjust(source *os.Root, version string) error {
	const changelog, patches = "debian/changelog", "debian/patches"
	if t.dsc.version != version {
		text, err := source.ReadFile(changelog)
		if err != nil {
			return err
		}
		own, err := trimChangelog(string(text), version)
		if err != nil {
			return err
		}
		if err := source.WriteFile(changelog, []byte(own), 0o644); err != nil {
			return err
		}
	}
	if t.series == nil {
		return nil
	}
	if format, err := source.ReadFile("debian/source/format"); err != nil || !strings.Contains(string(format), "quilt") {
		return fmt.Errorf("the source package keeps no patches in %s; give two versions instead of single fixes", patches)
	}
	for name, file := range t.extra {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		at := path.Join(patches, name)
		if err := source.MkdirAll(path.Dir(at), 0o755); err != nil {
			return err
		}
		if err := source.WriteFile(at, data, 0o644); err != nil {
			return err
		}
	}
	if err := source.MkdirAll(patches, 0o755); err != nil {
		return err
	}
	return source.WriteFile(path.Join(patches, "series"), []byte(*t.series), 0o644)
}
