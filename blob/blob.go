// Package blob keeps files under names: artifacts, metadata, packages. A file
// appears whole and durable or not at all.
//
// It must not know what is in a file, and nothing outside its folder can be
// reached through a name, symbolic links included.
package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Limits on names and lists.
const (
	MaxName  = 1024    // bytes
	MaxDepth = 16      // parts of a name
	MaxList  = 100_000 // names in one answer of List
)

// Errors with a documented meaning.
var (
	ErrName     = errors.New("not a name for a stored file")
	ErrNotFound = errors.New("no file of this name is stored")
	ErrTooLarge = errors.New("the file is larger than allowed")
	ErrHash     = errors.New("the file's content has another hash than announced")
	ErrMany     = errors.New("too many files for one list")
)

const (
	tempPrefix = ".new-"
	// tempLife is after how long a temporary file belongs to a writer that died.
	tempLife = 24 * time.Hour
)

// Info describes a stored file.
type Info struct {
	Name    string
	Size    int64
	Changed time.Time
}

// Want says what a file to be stored must be.
type Want struct {
	Max    int64  // most bytes
	SHA256 string // lower-case hex; "" for any content
}

// Dir is a folder of stored files. It is safe for concurrent use, also by
// several processes.
type Dir struct{ root *os.Root }

// Open opens the folder at path and makes it when it is not there. The caller
// closes it.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for files: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening the folder for files: %w", err)
	}
	d := &Dir{root: root}
	if err := d.sweep(time.Now().Add(-tempLife)); err != nil {
		return nil, errors.Join(fmt.Errorf("removing what a crash left: %w", err), root.Close())
	}
	return d, nil
}

// Close gives the folder back. Files that are open stay readable.
func (d *Dir) Close() error { return d.root.Close() }

// sweep removes temporary files that were last written before the given time.
func (d *Dir) sweep(before time.Time) error {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		info, err := entry.Info()
		if err == nil && info.ModTime().Before(before) {
			err = d.root.Remove(entry.Name())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ValidName reports whether a file can be stored under name: parts of letters,
// digits and the characters . _ ~ + - separated by slashes, none of them starting with a dot.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxName || strings.Count(name, "/") >= MaxDepth {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._~+-", rune(c)) {
				return false
			}
		}
	}
	return true
}

// Put stores what r yields under name, replacing a file of that name, and
// returns once it is durable. On any error the stored files are as before.
func (d *Dir) Put(ctx context.Context, name string, r io.Reader, want Want) (err error) {
	if !ValidName(name) {
		return ErrName
	}
	temp := tempPrefix + rand.Text()
	file, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	defer func() {
		if err != nil {
			if gone := d.root.Remove(temp); gone != nil {
				err = errors.Join(err, gone)
			}
		}
	}()
	err = errors.Join(fill(ctx, file, r, want), file.Close())
	if err != nil {
		return err
	}
	folder := path.Dir(name)
	if err := d.makeFolder(folder); err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	if err := d.root.Rename(temp, name); err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	return d.sync(folder)
}

// fill copies r into file, checks it and makes it durable.
func fill(ctx context.Context, file *os.File, r io.Reader, want Want) error {
	sum := sha256.New()
	limited := io.LimitReader(contextReader{ctx, r}, want.Max+1)
	n, err := io.Copy(io.MultiWriter(file, sum), limited)
	switch {
	case err != nil:
		return fmt.Errorf("storing a file: %w", err)
	case n > want.Max:
		return ErrTooLarge
	case want.SHA256 != "" && hex.EncodeToString(sum.Sum(nil)) != want.SHA256:
		return ErrHash
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	return nil
}

// makeFolder makes a folder and those above it, each durable.
func (d *Dir) makeFolder(folder string) error {
	if folder == "." {
		return nil
	}
	if _, err := d.root.Stat(folder); err == nil {
		return nil
	}
	if err := d.makeFolder(path.Dir(folder)); err != nil {
		return err
	}
	if err := d.root.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.sync(path.Dir(folder))
}

func (d *Dir) sync(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open opens the file called name for reading. The caller closes it. Its
// content stays as it was, even when the name is replaced meanwhile.
func (d *Dir) Open(name string) (*os.File, error) {
	if !ValidName(name) {
		return nil, ErrName
	}
	file, err := d.root.Open(name)
	if err != nil {
		return nil, found(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Stat describes the file called name.
func (d *Dir) Stat(name string) (Info, error) {
	if !ValidName(name) {
		return Info{}, ErrName
	}
	info, err := d.root.Stat(name)
	if err != nil {
		return Info{}, found(err)
	}
	if !info.Mode().IsRegular() {
		return Info{}, ErrNotFound
	}
	return Info{Name: name, Size: info.Size(), Changed: info.ModTime()}, nil
}

// Remove removes the file called name, durably.
func (d *Dir) Remove(name string) error {
	if _, err := d.Stat(name); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil {
		return found(err)
	}
	return d.sync(path.Dir(name))
}

// List returns the files below the folder called name, "" for all, sorted.
func (d *Dir) List(name string) ([]Info, error) {
	top := "."
	if name != "" {
		if !ValidName(name) {
			return nil, ErrName
		}
		top = name
	}
	var out []Info
	err := fs.WalkDir(d.root.FS(), top, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile, or nothing was ever stored there
		case err != nil:
			return err
		case !entry.Type().IsRegular() || !ValidName(name):
			return nil
		case len(out) == MaxList:
			return ErrMany
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		out = append(out, Info{Name: name, Size: info.Size(), Changed: info.ModTime()})
		return nil
	})
	return out, err
}

// found turns the operating system's ways to say "not there" into ErrNotFound.
func found(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}

// contextReader ends a copy when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
