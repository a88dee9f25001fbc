package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/patch/module"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/trust"
	trustclient "livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
)

// Limits of what is published by one command. Sizes are bytes.
const (
	publishTime   = 5 * time.Minute
	maxMetadata   = 1 << 20
	maxCredential = 4096
)

// publisher signs and uploads: everything that both publish commands share.
type publisher struct {
	Portal         string `required:"" help:"The portal's address."`
	CredentialFile string `required:"" help:"File with the vendor's credential." type:"existingfile"`
	Keys           string `required:"" help:"Folder with root.json and the targets keys, as repo init made it." type:"existingdir"`
}

type patchPublish struct {
	publisher
	Artifact string `arg:"" help:"The patch (.lmp)." type:"existingfile"`
	Metadata string `arg:"" help:"Its metadata (.json)." type:"existingfile"`
}

func (c *patchPublish) Run(ctx context.Context, k *kong.Kong) error {
	artifact, err := readLimited(c.Artifact, client.MaxArtifact)
	if err != nil {
		return err
	}
	text, err := readLimited(c.Metadata, maxMetadata)
	if err != nil {
		return err
	}
	custom, err := cjson.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Metadata, err)
	}
	md, err := patch.ParseCustom(custom)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Metadata, err)
	}
	if err := checkArtifact(artifact, md); err != nil {
		return fmt.Errorf("%s: nothing was signed: %w", c.Artifact, err)
	}
	return c.publish(ctx, k, trust.Target{Path: md.Path(), Custom: md.Custom()}, artifact)
}

// checkModule refuses a module that the kernel of its metadata would not take for
// a live patch.
func checkModule(artifact []byte, md *patch.Metadata) error {
	m, err := module.Read(artifact)
	switch {
	case err != nil:
		return err
	case !m.Livepatch:
		return fmt.Errorf("module %s is no live patch", m.Name)
	case m.Release != md.Target.Release || m.Arch != md.Target.Arch:
		return fmt.Errorf("module %s is for kernel %s on %s, and its metadata for %s on %s", m.Name, m.Release, m.Arch, md.Target.Release, md.Target.Arch)
	}
	return nil
}

// checkArtifact refuses to sign a patch that no agent would take.
func checkArtifact(artifact []byte, md *patch.Metadata) error {
	if md.Kind == patch.Kernel {
		return checkModule(artifact, md)
	}
	file, err := image.Decode(artifact)
	if err != nil {
		return err
	}
	if file.BuildID != md.Target.BuildID || file.Arch != md.Target.Arch {
		return errors.New("the image and its metadata are for different libraries")
	}
	return nil
}

type contentCommand struct {
	Publish contentPublish `cmd:"" help:"Sign and publish content for a scanner."`
}

type contentPublish struct {
	publisher
	File    string `arg:"" help:"The content, such as OVAL definitions." type:"existingfile"`
	Scanner string `default:"openscap" help:"Scanner that reads it."`
	Format  string `default:"oval-definitions-5.11" help:"Its format."`
	Title   string `help:"For people; the default is the file's name."`
}

func (c *contentPublish) Run(ctx context.Context, k *kong.Kong) error {
	content, err := readLimited(c.File, client.MaxArtifact)
	if err != nil {
		return err
	}
	name := filepath.Base(c.File)
	described := patch.Content{Scanner: c.Scanner, Format: c.Format, Title: c.Title}
	if described.Title == "" {
		described.Title = name
	}
	return c.publish(ctx, k, trust.Target{Path: "content/" + name, Custom: described.Custom()}, content)
}

// publish adds target to the portal's current targets metadata, signs the next
// version with every targets key and releases it with its file. What the portal
// says is current is verified first, with the root in the folder of the keys:
// the publisher signs nothing it did not sign before.
func (c *publisher) publish(ctx context.Context, k *kong.Kong, target trust.Target, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	credential, err := readLimited(c.CredentialFile, maxCredential)
	if err != nil {
		return err
	}
	portal := client.New(c.Portal, string(credential), nil)
	current, err := c.current(ctx, portal)
	if err != nil {
		return fmt.Errorf("reading what is published; nothing was signed: %w", err)
	}
	sum := sha256.Sum256(content)
	target.Length, target.SHA256 = int64(len(content)), hex.EncodeToString(sum[:])
	unsigned, err := repo.AddTarget(current, target, time.Now().Add(repo.TargetsLife))
	if err != nil {
		return err
	}
	signers, err := c.signers()
	if err != nil {
		return err
	}
	signed, err := repo.Sign(ctx, unsigned, signers...)
	if err != nil {
		return err
	}
	if err := portal.Publish(ctx, signed, map[string][]byte{target.Path: content}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.Stdout, "published %s\n  %d bytes, SHA-256 %s, signed by %d keys\n",
		target.Path, target.Length, target.SHA256, len(signers))
	return err
}

// current returns the verified targets metadata. What was seen is kept beside
// the keys, so a portal that goes back to an older state is noticed.
func (c *publisher) current(ctx context.Context, portal *client.Client) ([]byte, error) {
	root, err := readDocument(filepath.Join(c.Keys, "root.json"))
	if err != nil {
		return nil, err
	}
	cache, err := trustclient.OpenFolder(filepath.Join(c.Keys, "seen"))
	if err != nil {
		return nil, err
	}
	if err := trustclient.Pin(cache, root, trust.Ed25519()); err != nil {
		return nil, err
	}
	if _, err := trustclient.Refresh(ctx, cache, portal, trust.Ed25519(), time.Now()); err != nil {
		return nil, err
	}
	return cache.Load("targets.json")
}

func (c *publisher) signers() ([]repo.Signer, error) {
	paths, err := filepath.Glob(filepath.Join(escapeGlob(c.Keys), "targets-*.key"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no targets keys (targets-*.key) are in %s", c.Keys)
	}
	signers := make([]repo.Signer, len(paths))
	for i, path := range paths {
		if signers[i], err = repo.LoadKey(path); err != nil {
			return nil, err
		}
	}
	return signers, nil
}

// escapeGlob makes a folder's name mean itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readLimited(path string, limit int64) (content []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return content, err
}
