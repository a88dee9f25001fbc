package client

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"livemend.dev/livemend/trust"
)

// maxFile is the largest file that a Folder gives back.
const maxFile = trust.MaxTargets

// Folder is a Cache in a folder of its own, readable by its owner only. A file
// is replaced as a whole or not at all, also when the power fails. Safe for
// concurrent use; of two Stores of one name the later one counts.
type Folder struct{ dir string }

// OpenFolder makes the folder when it is missing.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Folder{dir: dir}, nil
}

// Load implements Cache.
func (f *Folder) Load(name string) (b []byte, err error) {
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &absent{name}
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b, err = io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errors.New("stored file " + name + " has more than " + strconv.Itoa(maxFile) + " bytes")
	}
	return b, err
}

// Store implements Cache: it writes a file beside the old one, makes it
// durable, and puts it in the old one's place.
func (f *Folder) Store(name string, b []byte) error {
	path, err := f.path(name)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncFolder(f.dir)
}

func (f *Folder) path(name string) (string, error) {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return "", errors.New("not the name of a metadata file: " + strconv.Quote(name))
	}
	return f.dir + "/" + name, nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// absent says which file is missing.
type absent struct{ name string }

func (e *absent) Error() string { return e.name + ": " + ErrNotFound.Error() }

func (e *absent) Unwrap() error { return ErrNotFound }
