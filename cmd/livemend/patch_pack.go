package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/author/pack"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

type patchPack struct {
	Kernel patchPackKernel `cmd:"" help:"Make a patch of a livepatch module that was made elsewhere, or of a distribution's live-patch package."`
}

type patchPackKernel struct {
	File         string   `arg:"" help:"The module (.ko), or an RPM package that holds it." type:"existingfile"`
	BuildID      string   `required:"" name:"build-id" help:"Build-id of the kernel that it is for, as the servers report it: a module does not say it."`
	Release      string   `help:"Release of that kernel, as uname -r tells it; needed when a package holds modules for several."`
	CVE          []string `name:"cve" sep:"none" placeholder:"ID[,severity=S,fixed=V]" help:"A vulnerability that the patch closes; may be repeated. Those in the package's changelog are found by themselves."`
	Component    string   `default:"kernel" help:"Package that scanners name for the vulnerabilities of the changelog."`
	Distribution string   `placeholder:"rhel-9" help:"Distribution of those vulnerabilities."`
	Level        int64    `required:"" help:"Number of the patch among those for the same kernel, from 1."`
	ID           string   `required:"" name:"id" help:"Identifier of the patch; also the name of the files."`
	Description  string   `help:"What it fixes, for people."`
	Supersedes   []string `help:"Identifiers of patches that this one replaces."`
	Out          string   `required:"" short:"o" help:"Folder for the artifact (.ko) and its metadata (.json)." type:"path"`
}

func (c *patchPackKernel) Run(k *kong.Kong) error {
	if !plainName(c.ID) {
		return fmt.Errorf("--id %q: use letters, digits, dots, dashes and underscores", c.ID)
	}
	data, err := readLimited(c.File, maxPackage)
	if err != nil {
		return err
	}
	md := &patch.Metadata{
		ID: c.ID, Level: c.Level, Supersedes: c.Supersedes, Description: c.Description,
		Target:     patch.Target{BuildID: patch.BuildID(c.BuildID), Release: c.Release},
		Provenance: patch.Provenance{Builder: "livemend patch pack kernel", Inputs: []patch.Input{input(filepath.Base(c.File), data)}},
	}
	if md.Fixes, err = kernelFixes(c.CVE); err != nil {
		return err
	}
	artifact := data
	if bytes.HasPrefix(data, rpmMagic) {
		p, err := readRPM(data)
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		if artifact, err = p.choose(c.Release); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		md.Provenance.Inputs = append(md.Provenance.Inputs, input("module of "+p.name, artifact))
		if err := c.fromChangelog(md, p); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
	}
	if err := pack.Module(artifact, md); err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if len(md.Fixes) == 0 {
		return errors.New("nothing says which vulnerability the patch closes; say it with --cve ID")
	}
	if err := md.Check(); err != nil {
		return err
	}
	if _, err := patch.ParseCustom(md.Custom()); err != nil {
		return err
	}
	var account []string
	for _, f := range md.Functions {
		account = append(account, fmt.Sprintf("replaces %s by %d bytes", f.Name, f.Size))
	}
	for _, f := range md.Fixes {
		account = append(account, "fixes "+string(f.CVE))
	}
	return writeModule(k, c.Out, artifact, md, account)
}

var rpmMagic = []byte{0xed, 0xab, 0xee, 0xdb}

// fromChangelog adds what the package's changelog says that it fixes, beside what
// was given.
func (c *patchPackKernel) fromChangelog(md *patch.Metadata, p *livepatchPackage) error {
	found, err := pack.CVEs(p.changelog...)
	if err != nil {
		return err
	}
	for _, id := range found {
		if !md.Covers(id) {
			md.Fixes = append(md.Fixes, patch.Fix{CVE: id, Component: c.Component, Distribution: c.Distribution})
		}
	}
	return nil
}

func input(name string, data []byte) patch.Input {
	sum := sha256.Sum256(data)
	return patch.Input{Name: name, SHA256: hex.EncodeToString(sum[:])}
}

// showModule writes what a livepatch module says of itself and replaces.
func showModule(w io.Writer, name string, data []byte) error {
	m, err := module.Read(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	functions, err := pack.Functions(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module %s for kernel %s (%s)\n", m.Name, m.Release, m.Arch)
	if !m.Livepatch {
		b.WriteString("  it is no live patch\n")
	}
	if m.Signed {
		b.WriteString("  it has a signature, which was not looked at\n")
	}
	for _, f := range functions {
		fmt.Fprintf(&b, "  function %s is replaced by %d bytes\n", f.Name, f.Size)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
