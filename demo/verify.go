package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

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

// verifyAgent verifies again what an agent has stored, from the pinned digest
// to the patch, and sees one changed bit refused in each file.
func verifyAgent(h *stage.Host, digest string, p fleet.Patch) (string, error) {
	text, err := os.ReadFile(h.Path(filepath.Join(stage.AgentState, "bundle.json")))
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
	files, err := agentRepository(h)
	if err != nil {
		return "", err
	}
	artifact, err := os.ReadFile(h.Path(filepath.Join(stage.AgentState, "objects", p.SHA256)))
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

// agentRepository reads the repository's metadata that an agent has stored.
func agentRepository(h *stage.Host) (stored, error) {
	files := stored{}
	for _, name := range []string{"root.json", "timestamp.json", "snapshot.json", "targets.json"} {
		b, err := os.ReadFile(h.Path(filepath.Join(stage.AgentState, "repository", name)))
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return files, nil
}

// believes says why metadata and content are not to be believed, or nil.
func believes(files stored, path string, content []byte) error {
	trusted, err := client.Load(files, trust.Ed25519(), time.Now(), false)
	if err != nil {
		return err
	}
	target, err := trusted.Target(path)
	if err != nil {
		return err
	}
	return trust.CheckContent(target, bytes.NewReader(content))
}

// flip returns b with one bit changed, in its middle.
func flip(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)/2] ^= 1
	return c
}

// hashes returns the files below a folder by their SHA-256.
func hashes(dir string) (map[string]string, error) {
	files := map[string]string{}
	return files, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced meanwhile
		}
		files[hash(b)] = path
		return err
	})
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// names lists files by name.
func names(files map[string][]byte) string {
	return strings.Join(slices.Sorted(maps.Keys(files)), ", ")
}
