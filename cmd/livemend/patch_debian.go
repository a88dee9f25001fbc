package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/debian"
)

// debianSource are the flags of a build from a Debian source package.
type debianSource struct {
	Debian  string `placeholder:"SOURCE" help:"Build from this Debian source package: fetch, build and compare two states of it in a throw-away root."`
	From    string `placeholder:"VERSION" help:"With --debian: the version that the servers run."`
	To      string `placeholder:"VERSION" help:"With --debian: the version that holds the fix."`
	Library string `placeholder:"FILE" help:"With --debian: the library or program to patch, such as liblzma.so.5."`
	Work    string `placeholder:"DIR" type:"path" help:"With --debian: folder for sources, builds and logs; a later run goes on with it. The default is in the user's cache."`
	Root    string `placeholder:"DIR" type:"existingdir" help:"With --debian: build over this root (such as debootstrap makes) instead of the machine's own. It is not changed."`
	Jobs    int    `help:"With --debian: compilers at the same time; the default is one per processor."`
}

// split parts fixes from names of patches in the source package and from files
// with diffs.
func (s *debianSource) split(list []string) (fixes, patches, diffs []string) {
	for _, text := range list {
		switch {
		case strings.HasPrefix(text, "debian/patches/"):
			patches = append(patches, text)
		case strings.Contains(text, "="):
			fixes = append(fixes, text)
		default:
			diffs = append(diffs, text)
		}
	}
	return fixes, patches, diffs
}

// build makes the patch from a source package, or from folders of objects.
func (c *patchBuildUser) build(ctx context.Context, progress io.Writer, r author.Request, patches, diffs []string) (*author.Result, error) {
	if len(r.Fixes) == 0 {
		return nil, errors.New("say with --fix CVE=ID which vulnerability the patch closes")
	}
	if c.Debian == "" {
		if c.Before == "" || c.After == "" || c.Binary == "" {
			return nil, errors.New("give --before, --after and --binary, or --debian with a source package")
		}
		if len(patches)+len(diffs) > 0 || c.From != "" || c.To != "" || c.Library != "" || c.Root != "" || c.Work != "" || c.Jobs != 0 {
			return nil, errors.New("--from, --to, --library, --root, --work, --jobs and fixes as patches or diffs go with --debian")
		}
		return author.Build(ctx, r)
	}
	if c.Before != "" || c.After != "" || c.Twin != "" || c.Fixed != "" || len(c.Dependency) > 0 {
		return nil, errors.New("with --debian the objects and the twin are built: leave out --before, --after, --twin, --fixed and --dependency")
	}
	work := c.Work
	if work == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("name a folder with --work: %w", err)
		}
		work = filepath.Join(cache, "livemend", "debian", c.ID)
	}
	began := time.Now()
	return debian.Build(ctx, debian.Options{
		Package: c.Debian, From: c.From, To: c.To, Patches: patches, Diffs: diffs, Library: c.Library,
		Binary: c.Binary, Work: work, Root: c.Root, Jobs: c.Jobs, Request: r,
		Progress: func(line string) {
			// Progress that nobody can read is no reason to end.
			_, _ = fmt.Fprintf(progress, "[%6.1fs] %s\n", time.Since(began).Seconds(), line)
		},
	})
}
