package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/kernel"
	"livemend.dev/livemend/patch"
)

type patchBuildKernel struct {
	Release     string   `required:"" help:"The kernel that the servers run, as uname -r tells it: 6.1.0-47-amd64."`
	Fix         string   `required:"" help:"File with the fix, as a diff with paths from the top of the kernel's source." type:"existingfile"`
	CVE         []string `name:"cve" sep:"none" placeholder:"ID[,severity=S,fixed=V]" help:"A vulnerability that the patch closes; may be repeated."`
	Level       int64    `default:"1" help:"Number of the patch among those for the same kernel, from 1."`
	ID          string   `name:"id" help:"Identifier of the patch; also the name of the files. The default is made of release and level."`
	Description string   `help:"What it fixes, for people."`
	Supersedes  []string `help:"Identifiers of patches that this one replaces."`
	Waive       []string `sep:"none" placeholder:"KIND:PLACE=PERSON: REASON" help:"Lift one refusal of kind layout or ownership on a person's word, which the patch records; may be repeated."`
	Work        string   `placeholder:"DIR" type:"path" help:"Folder for packages, sources and builds; a later run goes on with it. The default is in the user's cache."`
	Jobs        int      `help:"Compilers at the same time; the default is one per processor."`
	Out         string   `required:"" short:"o" help:"Folder for the artifact (.ko) and its metadata (.json)." type:"path"`
}

func (c *patchBuildKernel) Run(ctx context.Context, k *kong.Kong) error {
	if c.ID == "" {
		c.ID = fmt.Sprintf("K-%s-%d", strings.ReplaceAll(c.Release, "+", "_"), c.Level)
	}
	if !plainName(c.ID) {
		return fmt.Errorf("--id %q: use letters, digits, dots, dashes and underscores", c.ID)
	}
	o := kernel.Options{
		Release: c.Release, Diff: c.Fix, Work: c.Work, Jobs: c.Jobs, ID: c.ID, Level: c.Level,
		Supersedes: c.Supersedes, Description: c.Description, Builder: "livemend patch build kernel",
	}
	var err error
	if o.Fixes, err = kernelFixes(c.CVE); err != nil {
		return err
	}
	for _, text := range c.Waive {
		w, err := author.ParseWaiver(text)
		if err != nil {
			return fmt.Errorf("--waive: %w", err)
		}
		o.Waivers = append(o.Waivers, w)
	}
	if o.Work == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("name a folder with --work: %w", err)
		}
		o.Work = filepath.Join(cache, "livemend", "kernel")
	}
	began := time.Now()
	o.Progress = func(line string) {
		// Progress that nobody can read is no reason to end.
		_, _ = fmt.Fprintf(k.Stderr, "[%6.1fs] %s\n", time.Since(began).Seconds(), line)
	}
	result, err := kernel.Build(ctx, o)
	if err != nil {
		return explain(err)
	}
	return writeModule(k, c.Out, result.Module, result.Metadata, result.Account)
}

// kernelFixes reads ID[,severity=S,fixed=V] for a distribution's kernel. Without
// any the patch names itself as unrated.
func kernelFixes(list []string) ([]patch.Fix, error) {
	var out []patch.Fix
	for _, text := range list {
		fix, err := parseFix("CVE=" + text)
		if err != nil {
			return nil, fmt.Errorf("--cve: %w", err)
		}
		if fix.Component == "" {
			fix.Component = "linux"
		}
		out = append(out, fix)
	}
	return out, nil
}

// writeModule writes a kernel patch: the module as it is, and its metadata.
func writeModule(k *kong.Kong, out string, module []byte, md *patch.Metadata, account []string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	name := filepath.Join(out, md.ID)
	if err := writeDurably(name+".ko", module); err != nil {
		return err
	}
	if err := writeDurably(name+".json", md.Custom().Canonical()); err != nil {
		return err
	}
	lines := append([]string{fmt.Sprintf("%s: level %d for %s, build-id %s", md.ID, md.Level, md.Target.Release, md.Target.BuildID)}, account...)
	_, err := fmt.Fprintf(k.Stdout, "%s\nwrote %s.ko (%d bytes) and %s.json\n", strings.Join(lines, "\n  "), name, len(module), name)
	return err
}
