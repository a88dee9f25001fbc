package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// stock gets the binary that servers run; nothing when no package with it can be
// had any more.
func (d *driver) stock(ctx context.Context, source *dsc) (string, error) {
	if d.Binary != "" {
		return filepath.EvalSymlinks(d.Binary)
	}
	facts, err := d.do(ctx, job{
		name: "stock", inputs: digest(d.sources, d.Package, d.From, d.Library),
		advice: "Give the binary from a server with --binary.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			for _, pkg := range source.packages {
				found, err := d.takeFrom(ctx, log, pkg)
				if err != nil {
					return nil, nil, err
				}
				if found != "" {
					return map[string]string{"file": found}, []string{found}, nil
				}
			}
			d.say("stock: no package of %s %s that can be fetched holds %s (looked into: %s)", d.Package, d.From, d.Library, strings.Join(source.packages, ", "))
			return nil, nil, nil
		},
	})
	if err != nil || facts["file"] == "" {
		return "", err
	}
	return d.path(facts["file"]), nil
}

// takeFrom looks for the library in one binary package; it is empty when it is
// not there or the package cannot be had.
func (d *driver) takeFrom(ctx context.Context, log io.Writer, pkg string) (string, error) {
	var text bytes.Buffer
	if err := d.apt(ctx, io.MultiWriter(log, &text), inside, "apt-cache", "show", pkg); err != nil {
		return "", ctx.Err() // the log says why; another package may do
	}
	for _, v := range binaryVersions(text.String(), d.From) {
		found, err := d.download(ctx, log, pkg, v.version)
		if err == nil && found == "" && v.installed {
			found, err = d.installed(ctx, log, pkg)
		}
		if err != nil || found == "" {
			if err != nil {
				return "", err
			}
			continue
		}
		data, err := os.ReadFile(found)
		if err != nil {
			return "", err
		}
		d.say("stock: %s from package %s %s", filepath.Base(found), pkg, v.version)
		keep := filepath.Join("stock", filepath.Base(found))
		return keep, writeFile(d.path(keep), data)
	}
	return "", nil
}

// binaryVersion is a version of a binary package; rebuilds without changes
// have a number of their own behind that of the source.
type binaryVersion struct {
	version   string
	installed bool
}

// binaryVersions lists the versions that were built from one version of the
// source, the newest rebuild as apt-cache lists it first.
func binaryVersions(show, source string) []binaryVersion {
	var out []binaryVersion
	for _, p := range paragraphs(show) {
		v := binaryVersion{version: p.field("Version"), installed: strings.HasSuffix(p.field("Status"), " installed")}
		from := v.version
		if _, rest, found := strings.Cut(p.field("Source"), "("); found {
			from = strings.TrimSuffix(rest, ")")
		}
		if from != source || !versionPattern.MatchString(v.version) {
			continue
		}
		if i := slices.IndexFunc(out, func(o binaryVersion) bool { return o.version == v.version }); i >= 0 {
			out[i].installed = out[i].installed || v.installed
			continue
		}
		out = append(out, v)
	}
	return out
}

// download fetches a binary package and looks into it.
func (d *driver) download(ctx context.Context, log io.Writer, pkg, version string) (string, error) {
	if err := errors.Join(clearFolder(d.path("stock/deb")), clearFolder(d.path("stock/tree"))); err != nil {
		return "", err
	}
	if err := d.apt(ctx, log, inside+"/stock/deb", "apt-get", "download", pkg+"="+version); err != nil {
		return "", ctx.Err() // the log says why
	}
	debs, err := filepath.Glob(d.path("stock/deb/*.deb"))
	if err != nil || len(debs) != 1 {
		return "", err
	}
	deb := filepath.Join(inside, "stock/deb", filepath.Base(debs[0]))
	if err := d.root.command(ctx, log, depsLayer, "/usr/bin/dpkg-deb", "-x", deb, inside+"/stock/tree"); err != nil {
		return "", err
	}
	return findBinary(d.path("stock/tree"), d.Library)
}

// installed looks for the library among the files of a package that the root
// has installed; files that were changed since do not count.
func (d *driver) installed(ctx context.Context, log io.Writer, pkg string) (string, error) {
	var list, changed bytes.Buffer
	if err := d.root.command(ctx, &list, depsLayer, "/usr/bin/dpkg-query", "-L", pkg); err != nil {
		return "", err
	}
	// It exits with an error when files differ, and lists them.
	if err := d.root.command(ctx, io.MultiWriter(log, &changed), depsLayer, "/usr/bin/dpkg", "--verify", pkg); err != nil && changed.Len() == 0 {
		return "", err
	}
	for line := range strings.Lines(list.String()) {
		name := strings.TrimSpace(line)
		if path.Base(name) != d.Library {
			continue
		}
		real, err := filepath.EvalSymlinks(filepath.Join(d.Root, name))
		if err != nil {
			return "", err
		}
		below, err := filepath.Rel(d.Root, real)
		if err != nil || !filepath.IsLocal(below) || strings.Contains(changed.String(), "/"+filepath.Base(real)+"\n") {
			return "", fmt.Errorf("%s of the installed package %s is not as it was installed", name, pkg)
		}
		return real, nil
	}
	return "", nil
}

// findBinary looks for a file by name below an unpacked package and returns
// where its links lead inside it.
func findBinary(tree, name string) (string, error) {
	var found []string
	err := filepath.WalkDir(tree, func(at string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() != name {
			return err
		}
		real, err := filepath.EvalSymlinks(at)
		if err != nil {
			return nil // leads out of the package
		}
		if inTree, err := filepath.Rel(tree, real); err != nil || !filepath.IsLocal(inTree) {
			return nil
		}
		if !slices.Contains(found, real) {
			found = append(found, real)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return "", err
	}
	if len(found) > 1 {
		return "", fmt.Errorf("the package holds %s several times; give the right one with --binary: %s", name, strings.Join(found, ", "))
	}
	return found[0], nil
}
