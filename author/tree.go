package author

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"livemend.dev/livemend/author/object"
)

// maxObjects bounds the objects of one build; large libraries have thousands.
const maxObjects = 50_000

// tree is one build.
type tree struct {
	objects   []*object.Object  // by path
	producers map[string]string // compiler and flags by path, where debug information tells
	sum       string            // over all paths and contents
}

// readTrees reads the two builds.
func readTrees(ctx context.Context, before, after string) (old, fresh *tree, err error) {
	if old, err = readTree(ctx, before); err != nil {
		return nil, nil, fmt.Errorf("reading the old build: %w", err)
	}
	if fresh, err = readTree(ctx, after); err != nil {
		return nil, nil, fmt.Errorf("reading the new build: %w", err)
	}
	return old, fresh, nil
}

// readTree reads every object (*.o) below dir, in the order of their paths.
// Links are not followed.
func readTree(ctx context.Context, dir string) (*tree, error) {
	t := &tree{producers: map[string]string{}}
	all := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.Type().IsRegular() || filepath.Ext(path) != ".o" {
			return nil
		}
		if len(t.objects) == maxObjects {
			return fmt.Errorf("there are more than %d objects", maxObjects)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		data, err := readFile(path)
		if err != nil {
			return err
		}
		o, err := object.Read(name, data)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		if _, err := fmt.Fprintf(all, "%s %q\n", hex.EncodeToString(sum[:]), name); err != nil {
			return err
		}
		t.objects = append(t.objects, o)
		t.producers[name] = object.Producer(data)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(t.objects) == 0 {
		return nil, errors.New("there are no objects (*.o) in " + dir)
	}
	t.sum = hex.EncodeToString(all.Sum(nil))
	return t, nil
}
