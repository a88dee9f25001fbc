package debian

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxState bounds the state file.
const maxState = 1 << 20

// state remembers which stages are finished: with which inputs, and what
// their products contain. A stage whose inputs or products differ runs again.
type state struct {
	path   string
	stages map[string]stage
}

type stage struct {
	Inputs   string            `json:"inputs"`   // digest
	Products map[string]string `json:"products"` // file or folder in the work folder to digest
	Facts    map[string]string `json:"facts,omitempty"`
}

// openState reads the state file, which need not exist. One that cannot be
// read counts as empty: every stage runs again, nothing wrong is taken over.
func openState(work string) (*state, error) {
	s := &state{path: filepath.Join(work, "state.json"), stages: map[string]stage{}}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if json.Unmarshal(text, &s.stages) != nil || s.stages == nil {
		s.stages = map[string]stage{}
	}
	return s, nil
}

// finished returns what a stage found, when it ran with the same inputs and
// its products are as it left them.
func (s *state) finished(name, inputs string) (facts map[string]string, ok bool) {
	done, ok := s.stages[name]
	if !ok || done.Inputs != inputs {
		return nil, false
	}
	for product, want := range done.Products {
		if !filepath.IsLocal(product) {
			return nil, false
		}
		sum, err := digestPath(filepath.Join(filepath.Dir(s.path), product))
		if err != nil || sum != want {
			return nil, false
		}
	}
	return done.Facts, true
}

// forget has a stage run again.
func (s *state) forget(name string) { delete(s.stages, name) }

// finish records a stage; it is on disk when finish returns.
func (s *state) finish(name, inputs string, facts map[string]string, products ...string) error {
	done := stage{Inputs: inputs, Facts: facts, Products: map[string]string{}}
	for _, product := range products {
		sum, err := digestPath(filepath.Join(filepath.Dir(s.path), product))
		if err != nil {
			return err
		}
		done.Products[product] = sum
	}
	s.stages[name] = done
	text, err := json.MarshalIndent(s.stages, "", "  ")
	if err != nil {
		return err
	}
	fresh := s.path + ".new"
	f, err := os.Create(fresh)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, s.path)
}

// digestPath is over a file's bytes, or over the names and bytes of all files
// below a folder.
func digestPath(path string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", at)
		}
		f, err := os.Open(at)
		if err != nil {
			return err
		}
		one := sha256.New()
		_, err = io.Copy(one, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%x %q\n", one.Sum(nil), strings.TrimPrefix(at, path))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// sumOf is the SHA-256 of data, hexadecimal.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// digest names the inputs of a stage.
func digest(parts ...string) string {
	sum := sha256.New()
	for _, p := range parts {
		// Writing to a hash does not fail.
		_, _ = fmt.Fprintf(sum, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
