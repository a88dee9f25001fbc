package repo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"livemend.dev/livemend/trust"
)

// How long documents last unless a ceremony says otherwise.
const (
	RootLife    = 365 * 24 * time.Hour
	TargetsLife = 90 * 24 * time.Hour
)

// Ceremony makes the keys of a repository and its first documents, in a new
// folder. In earnest the root and targets keys are then carried to machines of
// their own; only the two online keys stay with the portal.
type Ceremony struct {
	RootKeys         int // how many
	RootThreshold    int
	TargetsKeys      int
	TargetsThreshold int
}

// RepositoryFiles names what Ceremony.Run wrote.
type RepositoryFiles struct {
	RootKeys    []string
	TargetsKeys []string
	Snapshot    string // online key
	Timestamp   string // online key
	Root        string // signed
	Targets     string // signed, empty, version 1
}

// RepositoryFilesIn returns the names that a ceremony in dir uses.
func (c Ceremony) RepositoryFilesIn(dir string) RepositoryFiles {
	return RepositoryFiles{
		RootKeys:    numbered(dir, "root", c.RootKeys),
		TargetsKeys: numbered(dir, "targets", c.TargetsKeys),
		Snapshot:    filepath.Join(dir, "snapshot.key"),
		Timestamp:   filepath.Join(dir, "timestamp.key"),
		Root:        filepath.Join(dir, "root.json"),
		Targets:     filepath.Join(dir, "targets.json"),
	}
}

// Run makes everything in dir, which must not hold a root yet. Keys that an
// interrupted run left there are used.
func (c Ceremony) Run(ctx context.Context, dir string, now time.Time) (RepositoryFiles, error) {
	files := c.RepositoryFilesIn(dir)
	if err := enough("root", c.RootKeys, c.RootThreshold); err != nil {
		return files, err
	}
	if err := enough("targets", c.TargetsKeys, c.TargetsThreshold); err != nil {
		return files, err
	}
	if err := begin(dir, files.Root); err != nil {
		return files, err
	}
	rootSigners, rootKeys, err := createKeys(files.RootKeys...)
	if err != nil {
		return files, err
	}
	targetsSigners, targetsKeys, err := createKeys(files.TargetsKeys...)
	if err != nil {
		return files, err
	}
	_, online, err := createKeys(files.Snapshot, files.Timestamp)
	if err != nil {
		return files, err
	}
	root, err := NewRoot(RootSpec{
		Version: 1, Expires: now.Add(RootLife),
		RootKeys: rootKeys, RootThreshold: c.RootThreshold,
		TargetsKeys: targetsKeys, TargetsThreshold: c.TargetsThreshold,
		Snapshot: online[0], Timestamp: online[1],
	})
	if err != nil {
		return files, err
	}
	targets, err := NewTargets(now.Add(TargetsLife))
	if err != nil {
		return files, err
	}
	if err := signNew(ctx, files.Targets, targets, targetsSigners); err != nil {
		return files, err
	}
	return files, signNew(ctx, files.Root, root, rootSigners)
}

// DirectorCeremony makes the keys of a tenant's director and its root.
type DirectorCeremony struct {
	RootKeys      int
	RootThreshold int
}

// DirectorFiles names what DirectorCeremony.Run wrote.
type DirectorFiles struct {
	RootKeys []string
	Director string // online key, for the signer child
	Channel  string // X25519 key of the server
	Root     string // signed
}

// DirectorFilesIn returns the names that a ceremony in dir uses.
func (c DirectorCeremony) DirectorFilesIn(dir string) DirectorFiles {
	return DirectorFiles{
		RootKeys: numbered(dir, "director-root", c.RootKeys),
		Director: filepath.Join(dir, "director.key"),
		Channel:  filepath.Join(dir, "channel.key"),
		Root:     filepath.Join(dir, "director-root.json"),
	}
}

// Run makes everything in dir, which must not hold a director root yet. Keys
// that an interrupted run left there are used.
func (c DirectorCeremony) Run(ctx context.Context, dir string, now time.Time) (DirectorFiles, error) {
	files := c.DirectorFilesIn(dir)
	if err := enough("root", c.RootKeys, c.RootThreshold); err != nil {
		return files, err
	}
	if err := begin(dir, files.Root); err != nil {
		return files, err
	}
	signers, rootKeys, err := createKeys(files.RootKeys...)
	if err != nil {
		return files, err
	}
	_, director, err := createKeys(files.Director)
	if err != nil {
		return files, err
	}
	_, channel, err := CreateChannelKey(files.Channel)
	if errors.Is(err, fs.ErrExist) {
		_, channel, err = LoadChannelKey(files.Channel)
	}
	if err != nil {
		return files, err
	}
	root, err := NewDirectorRoot(DirectorSpec{
		Version: 1, Expires: now.Add(RootLife),
		RootKeys: rootKeys, RootThreshold: c.RootThreshold,
		DirectorKeys: director, DirectorThreshold: 1,
		ChannelKeys: []string{hex.EncodeToString(channel)},
	})
	if err != nil {
		return files, err
	}
	return files, signNew(ctx, files.Root, root, signers)
}

// enough is asked before any key is made.
func enough(role string, keys, threshold int) error {
	if threshold < 1 || threshold > keys || keys > trust.MaxKeys {
		return fmt.Errorf("%w: role %s: %d of %d keys can not be asked for", ErrSpec, role, threshold, keys)
	}
	return nil
}

// begin makes dir and refuses when the document root, which is written last,
// is there.
func begin(dir, root string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for keys: %w", err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("%s: nothing was changed; choose a new folder: %w", root, err)
	}
	return nil
}

func numbered(dir, role string, n int) []string {
	names := make([]string, 0, max(n, 0))
	for i := range n {
		names = append(names, filepath.Join(dir, role+"-"+strconv.Itoa(i+1)+".key"))
	}
	return names
}

func createKeys(paths ...string) ([]Signer, []trust.PublicKey, error) {
	signers := make([]Signer, len(paths))
	keys := make([]trust.PublicKey, len(paths))
	for i, path := range paths {
		k, err := CreateKey(path)
		if errors.Is(err, fs.ErrExist) {
			k, err = LoadKey(path)
		}
		if err != nil {
			return nil, nil, err
		}
		signers[i], keys[i] = k, k.Public()
	}
	return signers, keys, nil
}

func signNew(ctx context.Context, path string, doc []byte, signers []Signer) error {
	signed, err := Sign(ctx, doc, signers...)
	if err != nil {
		return err
	}
	// Only a run that was interrupted before the root can have left one.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing an unfinished document: %w", err)
	}
	return writeNew(path, signed, 0o644)
}
