package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// maxKeyFile bounds the file of the master key, in bytes.
const maxKeyFile = 1024

// trust returns the server's channel key and the bundle that agents pin.
func (c *platformSettings) trust(ctx context.Context, log *slog.Logger) (private []byte, bundle *trust.Bundle, err error) {
	files := repo.DirectorCeremony{}.DirectorFilesIn(c.Director)
	director, err := readDocument(files.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the director's root: %w", err)
	}
	private, public, err := repo.LoadChannelKey(files.Channel)
	if err != nil {
		return nil, nil, err
	}
	root, err := c.portalRoot(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	bundle, err = trust.NewBundle(director, root, []string{hex.EncodeToString(public)}, trust.Ed25519())
	if err != nil {
		return nil, nil, fmt.Errorf("making the bundle that agents trust: %w", err)
	}
	return private, bundle, nil
}

// portalRoot returns the root of the portal's repository: the file that was
// named, else the one that an earlier start kept, else what the portal gives
// now, which is kept.
func (c *platformSettings) portalRoot(ctx context.Context, log *slog.Logger) ([]byte, error) {
	if c.PortalRoot != "" {
		return readDocument(c.PortalRoot)
	}
	kept := filepath.Join(c.Data, "portal-root.json")
	root, err := readDocument(kept)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err
	}
	root, err = c.Portal.Fetch(ctx, "1.root.json", trust.MaxRoot)
	if err != nil {
		return nil, fmt.Errorf("getting the portal's root: %w", err)
	}
	if _, err := trust.ParseRoot(root, trust.Ed25519()); err != nil {
		return nil, err
	}
	log.WarnContext(ctx, "the portal's root was taken from the portal itself; compare this file with what its operator published", "file", kept)
	return root, writeNew(kept, root)
}

// masterKey reads the key that encrypts registration keys, or makes it at the
// first start.
func masterKey(path string) ([]byte, error) {
	text, err := readLimited(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, platform.MasterKeySize)
		rand.Read(key) // never fails: it ends the program when the system has no randomness
		return key, writeNew(path, []byte(hex.EncodeToString(key)+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the master key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != platform.MasterKeySize {
		return nil, fmt.Errorf("%s holds no master key: restore the file, or the registration keys cannot be shown again", path)
	}
	return key, nil
}

// writeNew writes a file that only its owner may read, durably, and fails when
// there is one of that name.
func writeNew(path string, content []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
