package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"livemend.dev/livemend/trust"
)

// maxFileName is the longest name of a file that common file systems have.
const maxFileName = 255

// shelf keeps verified targets in a folder, each in a file of its own.
type shelf struct {
	dir    string
	from   *web
	hashed bool // files in the repository have their hash before their name
}

// get stores the target, unless it is there already. A file under its name is
// replaced when the new content was verified as a whole, and not before.
func (s *shelf) get(ctx context.Context, t trust.Target) error {
	path := filepath.Join(s.dir, fileName(t.Path))
	if have, err := holds(path, t); have || err != nil {
		return err
	}
	if err := s.download(ctx, t, path); err != nil {
		return fmt.Errorf("downloading %q, what was there stays: %w", t.Path, err)
	}
	return nil
}

// fileName returns the name of the target's file: its path, percent-encoded, so
// that no target is stored outside of the folder. One that would be too long
// is named by its hash, with a percent sign that no encoded name has.
func fileName(path string) string {
	name := trust.StoredName(path)
	if len(name) <= maxFileName {
		return name
	}
	sum := sha256.Sum256([]byte(path))
	return "%-" + hex.EncodeToString(sum[:])
}

// holds reports whether the file at path is the target. One with other content
// is no error.
func holds(path string, t trust.Target) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at what is stored, nothing was downloaded: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	err = trust.CheckContent(t, f)
	if errors.Is(err, trust.ErrLength) || errors.Is(err, trust.ErrHash) {
		return false, nil
	}
	return err == nil, err
}

func (s *shelf) download(ctx context.Context, t trust.Target, path string) error {
	tmp, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	err = s.fill(ctx, t, tmp)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncFolder(s.dir)
}

// fill writes the target to tmp, durably, or returns why it is not the target.
func (s *shelf) fill(ctx context.Context, t trust.Target, tmp *os.File) error {
	name := t.Path
	if s.hashed {
		name = t.StorageName()
	}
	content := trust.NewContent(t)
	if err := s.from.copy(ctx, (&url.URL{Path: name}).EscapedPath(), t.Length, both{content, tmp}); err != nil {
		return err
	}
	if err := content.Close(); err != nil {
		return err
	}
	return tmp.Sync()
}

// both writes what the first writer, which verifies, accepts to the second.
type both struct {
	content *trust.Content
	file    *os.File
}

func (b both) Write(p []byte) (int, error) {
	if n, err := b.content.Write(p); err != nil {
		return n, err
	}
	return b.file.Write(p)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
