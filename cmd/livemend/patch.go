package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/portal/client"
)

type patchCommand struct {
	Build   patchBuild   `cmd:"" help:"Build a live patch."`
	Pack    patchPack    `cmd:"" help:"Make a patch of what others made."`
	Show    patchShow    `cmd:"" help:"Say what is in a patch."`
	Publish patchPublish `cmd:"" help:"Sign and publish a patch."`
}

type patchBuild struct {
	User   patchBuildUser   `cmd:"" help:"For a shared library or program, from two builds and the binary that runs."`
	Kernel patchBuildKernel `cmd:"" help:"For a kernel of Debian, from a diff against its source package."`
}

type patchBuildUser struct {
	Before      string   `help:"Folder with the objects of the vulnerable source, built with -ffunction-sections -fdata-sections." type:"existingdir"`
	After       string   `help:"Folder with the objects of the fixed source, built alike." type:"existingdir"`
	Binary      string   `help:"The binary as it is on the servers; with --debian it is taken from the package." type:"existingfile"`
	Twin        string   `help:"The same binary with its symbols, when --binary is stripped." type:"existingfile"`
	Fixed       string   `help:"What the fixed objects were linked into: tells the versions of functions that the fix is the first to use." type:"existingfile"`
	Dependency  []string `sep:"none" help:"Without --fixed: a library that the binary needs, which tells the same; may be repeated, in the binary's order." type:"existingfile"`
	Fix         []string `required:"" sep:"none" placeholder:"CVE=ID,severity=S,component=C,distribution=D,fixed=V" help:"A vulnerability that the patch closes; may be repeated. With --debian also debian/patches/NAME: only that patch of the source; or a file with a diff that goes on top of --from."`
	Level       int64    `required:"" help:"Number of the patch among those for the same binary, from 1."`
	ID          string   `required:"" name:"id" help:"Identifier of the patch; also the name of the files."`
	Description string   `help:"What it fixes, for people."`
	Supersedes  []string `help:"Identifiers of patches that this one replaces."`
	Waive       []string `sep:"none" placeholder:"KIND:PLACE=PERSON: REASON" help:"Lift one refusal of kind layout or ownership on a person's word, which the patch records; may be repeated."`
	Out         string   `required:"" help:"Folder for the artifact (.lmp) and its metadata (.json)." type:"path"`

	debianSource `embed:""`
}

func (c *patchBuildUser) Run(ctx context.Context, k *kong.Kong) error {
	request := author.Request{
		Before: c.Before, After: c.After, Binary: c.Binary, Twin: c.Twin, Fixed: c.Fixed, Dependencies: c.Dependency,
		ID: c.ID, Level: c.Level, Supersedes: c.Supersedes, Description: c.Description,
		Builder: "livemend patch build user",
	}
	if !plainName(c.ID) {
		return fmt.Errorf("--id %q: use letters, digits, dots, dashes and underscores", c.ID)
	}
	fixes, patches, diffs := c.split(c.Fix)
	for _, text := range fixes {
		fix, err := parseFix(text)
		if err != nil {
			return err
		}
		request.Fixes = append(request.Fixes, fix)
	}
	for _, text := range c.Waive {
		w, err := author.ParseWaiver(text)
		if err != nil {
			return fmt.Errorf("--waive: %w", err)
		}
		request.Waivers = append(request.Waivers, w)
	}
	result, err := c.build(ctx, k.Stderr, request, patches, diffs)
	if err != nil {
		return explain(err)
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	name := filepath.Join(c.Out, c.ID)
	if err := writeDurably(name+".lmp", result.Artifact); err != nil {
		return err
	}
	if err := writeDurably(name+".json", result.Metadata.Custom().Canonical()); err != nil {
		return err
	}
	lines := append([]string{fmt.Sprintf("%s: level %d for %s, build-id %s", c.ID, c.Level, result.Metadata.Target.Library, result.Metadata.Target.BuildID)}, result.Account...)
	_, err = fmt.Fprintf(k.Stdout, "%s\nwrote %s.lmp (%d bytes) and %s.json\n", strings.Join(lines, "\n  "), name, len(result.Artifact), name)
	return err
}

// explain says why there is no patch, and which of the reasons are a person's
// to judge.
func explain(err error) error {
	all := refusal.All(err)
	if len(all) == 0 {
		return err
	}
	var hint string
	for _, r := range all {
		if author.CanWaive(r.Kind) {
			hint += fmt.Sprintf("\n  --waive '%s:%s=YOUR NAME: REASON'", r.Kind, r.Place)
		}
	}
	if hint != "" {
		hint = "\nWho knows that running processes hold nothing that the new code would take wrongly may say so, and the patch will carry it:" + hint
	}
	return fmt.Errorf("no patch was built, for %d reasons:\n%w%s", len(all), err, hint)
}

// parseFix reads CVE=ID and what else is known about it.
func parseFix(text string) (patch.Fix, error) {
	var f patch.Fix
	for part := range strings.SplitSeq(text, ",") {
		key, value, found := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "cve":
			f.CVE = patch.CVE(value)
		case "severity":
			f.Severity = value
		case "component":
			f.Component = value
		case "distribution":
			f.Distribution = value
		case "fixed":
			f.FixedVersion = value
		default:
			found = false
		}
		if !found {
			return f, fmt.Errorf("--fix %q: %q is not CVE, severity, component, distribution or fixed with a value", text, part)
		}
	}
	if f.CVE == "" {
		return f, fmt.Errorf("--fix %q names no CVE", text)
	}
	return f, nil
}

// plainName reports whether s is good as a file name everywhere.
func plainName(s string) bool {
	if s == "" || len(s) > patch.MaxName || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// writeDurably puts content under path, whole or not at all.
func writeDurably(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

type patchShow struct {
	File string `arg:"" help:"The patch (.lmp or .ko)." type:"existingfile"`
}

func (c *patchShow) Run(k *kong.Kong) error {
	data, err := readLimited(c.File, client.MaxArtifact)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return showModule(k.Stdout, c.File, data)
	}
	f, err := image.Decode(data)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	return show(k.Stdout, f)
}

// show writes what an image does, one line per segment, import and function.
func show(w io.Writer, f *image.File) error {
	var b strings.Builder
	fmt.Fprintf(&b, "for build-id %s (%s)\n", f.BuildID, f.Arch)
	prots := map[image.Prot]string{image.ReadOnly: "r--", image.ReadExec: "r-x", image.ReadWrite: "rw-"}
	at := uint32(0)
	for _, s := range f.Segments {
		fmt.Fprintf(&b, "  segment %#x %s %d bytes, %d from the file\n", at, prots[s.Prot], s.Size, len(s.Data))
		at += s.Size
	}
	fmt.Fprintf(&b, "  %d relocations\n", len(f.Relocs))
	kinds := map[image.ImportKind]string{image.Function: "function", image.Data: "data"}
	for _, m := range f.Imports {
		name := m.Name
		if m.Version != "" {
			name += "@" + m.Version
		}
		fmt.Fprintf(&b, "  import %s (%s)\n", name, kinds[m.Kind])
	}
	for i := range f.Hunks {
		h := &f.Hunks[i]
		fmt.Fprintf(&b, "  function %s at %#x (%d bytes) goes to %#x\n", h.Name, h.Off, h.Size, h.New)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
