// Package evidence checks for a demonstration what an agent holds, with the
// product's verifier and nothing of the agent's own.
//
// It reads files and says what is true of them; it must not talk to any of the
// product's programs.
package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

// Read returns the content of an agent's file.
type Read func(path string) ([]byte, error)

// stored is a copy of what an agent believes, that can be damaged.
type stored map[string][]byte

// Load implements client.Cache.
func (s stored) Load(name string) ([]byte, error) {
	if b, ok := s[name]; ok {
		return b, nil
	}
	return nil, client.ErrNotFound
}

// Store implements client.Cache.
func (s stored) Store(name string, b []byte) error {
	s[name] = b
	return nil
}

// Agent verifies again what an agent has stored below folder, from the pinned
// digest to the patch, sees one changed bit refused in each file, and returns
// that in words.
func Agent(read Read, folder, digest string, p fleet.Patch) (string, error) {
	text, err := read(path.Join(folder, "bundle.json"))
	if err != nil {
		return "", err
	}
	bundle, err := trust.ParseBundle(text, trust.Ed25519())
	if err != nil {
		return "", err
	}
	if bundle.Digest() != digest {
		return "", fmt.Errorf("the agent's roots have digest %s, the install command pinned %s", bundle.Digest(), digest)
	}
	files, err := repository(read, folder)
	if err != nil {
		return "", err
	}
	artifact, err := read(path.Join(folder, "objects", p.SHA256))
	if err != nil {
		return "", err
	}
	if err := believes(files, p.Path, artifact); err != nil {
		return "", err
	}
	var refused []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		damaged := maps.Clone(files)
		damaged[name] = flip(files[name])
		err := believes(damaged, p.Path, artifact)
		if err == nil {
			return "", fmt.Errorf("%s with one changed bit was believed", name)
		}
		refused = append(refused, name+": "+trust.Class(err))
	}
	err = believes(files, p.Path, flip(artifact))
	if !errors.Is(err, trust.ErrHash) {
		return "", fmt.Errorf("the patch with one changed bit: %w", err)
	}
	refused = append(refused, "patch: "+trust.Class(err))
	return "verified from the pinned digest through root, timestamp, snapshot and targets to the patch\n  with one bit changed each is refused: " +
		strings.Join(refused, ", "), nil
}

// repository reads the repository's metadata that an agent has stored.
func repository(read Read, folder string) (stored, error) {
	files := stored{}
	for _, name := range []string{"root.json", "timestamp.json", "snapshot.json", "targets.json"} {
		b, err := read(path.Join(folder, "repository", name))
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return files, nil
}

// believes says why metadata and content are not to be believed, or nil.
func believes(files stored, target string, content []byte) error {
	trusted, err := client.Load(files, trust.Ed25519(), time.Now(), false)
	if err != nil {
		return err
	}
	t, err := trusted.Target(target)
	if err != nil {
		return err
	}
	return trust.CheckContent(t, bytes.NewReader(content))
}

// flip returns b with one bit changed, in its middle.
func flip(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)/2] ^= 1
	return c
}
