package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

type repoCommand struct {
	Init repoInit `cmd:"" help:"Make the keys and first documents of a patch repository (key ceremony)."`
	Sign repoSign `cmd:"" help:"Add signatures to a document."`
	Show repoShow `cmd:"" help:"Show what a document says and who signed it."`
}

type repoInit struct {
	Folder           string `arg:"" help:"New folder for keys and documents." type:"path"`
	RootKeys         int    `default:"3" help:"How many root keys to make."`
	RootThreshold    int    `default:"2" help:"How many of them must sign."`
	TargetsKeys      int    `default:"2" help:"How many targets keys to make."`
	TargetsThreshold int    `default:"2" help:"How many of them must sign."`
}

func (c *repoInit) Run(ctx context.Context, k *kong.Kong) error {
	files, err := repo.Ceremony{
		RootKeys: c.RootKeys, RootThreshold: c.RootThreshold,
		TargetsKeys: c.TargetsKeys, TargetsThreshold: c.TargetsThreshold,
	}.Run(ctx, c.Folder, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.Stdout, "root document     %s (%d of %d keys)\n"+
		"targets document  %s (%d of %d keys)\n"+
		"online keys       %s %s (for the portal's signer)\n"+
		"Carry every other key file to a machine of its own and remove it here.\n",
		files.Root, c.RootThreshold, c.RootKeys, files.Targets, c.TargetsThreshold, c.TargetsKeys,
		files.Snapshot, files.Timestamp)
	return err
}

type repoSign struct {
	File string   `arg:"" help:"Document to sign; replaced by the signed one." type:"existingfile"`
	Key  []string `short:"k" required:"" help:"Key file; may be given several times." type:"existingfile"`
}

func (c *repoSign) Run(ctx context.Context) error {
	doc, err := readDocument(c.File)
	if err != nil {
		return err
	}
	signers := make([]repo.Signer, len(c.Key))
	for i, path := range c.Key {
		if signers[i], err = repo.LoadKey(path); err != nil {
			return err
		}
	}
	signed, err := repo.Sign(ctx, doc, signers...)
	if err != nil {
		return err
	}
	return replaceFile(c.File, signed)
}

type repoShow struct {
	File string `arg:"" help:"Document to show." type:"existingfile"`
}

func (c *repoShow) Run(k *kong.Kong) error {
	doc, err := readDocument(c.File)
	if err != nil {
		return err
	}
	e, err := trust.ParseEnvelope(doc, trust.MaxTargets)
	if err != nil {
		return err
	}
	f := cjson.Fields(e.Signed)
	text := fmt.Sprintf("%s, version %d, until %s\n", f.Text("_type", 64), f.Int("version"), f.Text("expires", 64))
	if err := f.Err(); err != nil {
		return fmt.Errorf("%s is no repository document: %w", c.File, err)
	}
	for _, s := range e.Signatures {
		text += "signature by " + s.KeyID + " (not verified here)\n"
	}
	if targets, ok := e.Signed.Get("targets"); ok {
		for _, m := range targets.Members() {
			length, _ := m.Value.Get("length")
			n, _ := length.Int()
			text += fmt.Sprintf("target %s, %d bytes\n", m.Name, n)
		}
	}
	_, err = io.WriteString(k.Stdout, text)
	return err
}

func readDocument(path string) (b []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b, err = io.ReadAll(io.LimitReader(file, trust.MaxTargets+1))
	if err == nil && len(b) > trust.MaxTargets {
		err = fmt.Errorf("%s has more than %d bytes", path, trust.MaxTargets)
	}
	return b, err
}

// replaceFile puts b in the place of the file at path, as a whole or not at all.
func replaceFile(path string, b []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".signed-*")
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = errors.Join(file.Chmod(0o644), file.Sync())
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
