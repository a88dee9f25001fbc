package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// How long the machine-signed roles last. They are always signed together, the
// shorter life decides when.
const (
	TimestampLife = 24 * time.Hour
	SnapshotLife  = 7 * 24 * time.Hour
)

const (
	timestampFile = "timestamp.json"
	targetsFolder = "targets/"
)

// Online signs the two roles that are renewed by machine.
type Online struct {
	Snapshot  Signer
	Timestamp Signer
}

// Repository is a published repository in a folder: metadata files at its top,
// artifacts below targets/. It can be served as it is. Files are only added,
// except timestamp.json, which is replaced last: a reader sees the old state or
// the new one, and a publication that was interrupted is simply run again.
// Safe for concurrent use, also by several processes.
type Repository struct {
	mu     sync.Mutex // with the lock file: one publication at a time
	dir    string
	files  *blob.Dir
	online Online
}

// Open opens the repository in dir, which may be empty or missing. The caller
// closes it.
func Open(dir string, online Online) (*Repository, error) {
	files, err := blob.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Repository{dir: dir, files: files, online: online}, nil
}

// Close gives the folder back.
func (r *Repository) Close() error { return r.files.Close() }

// Files returns the folder, for serving it. The caller only reads.
func (r *Repository) Files() *blob.Dir { return r.files }

// Init publishes the first root and the first targets metadata, which lists
// nothing. It changes nothing when this root is published already, and fails
// when another one is.
func (r *Repository) Init(ctx context.Context, root, targets []byte, now time.Time) error {
	return r.locked(func() error {
		first, err := trust.ParseRoot(root, trust.Ed25519())
		if err != nil {
			return err
		}
		if first.Version != 1 {
			return fmt.Errorf("%w: the first root has version %d, not 1", ErrPublished, first.Version)
		}
		if err := r.checkRoot(first); err != nil {
			return err
		}
		have, err := r.read("1.root.json", trust.MaxRoot)
		switch {
		case errors.Is(err, blob.ErrNotFound):
			if err := r.write(ctx, "1.root.json", root); err != nil {
				return err
			}
		case err != nil:
			return err
		case !bytes.Equal(have, root):
			return fmt.Errorf("%w: another root is published here", ErrPublished)
		}
		s, err := r.state()
		if err != nil || s.stamp > 0 {
			return err
		}
		return r.publish(ctx, s, targets, nil, now)
	})
}

// Publish makes signedTargets the current targets metadata. Artifacts holds the
// new files under their target paths; what is published already is not asked
// for. It is checked first that enough keys signed, that the version is the
// next one, that every file has the signed content, and that the patches obey
// the rules of checkPatches; a refusal wraps ErrPublished or an error of package
// trust, and nothing is announced. Publishing again what is current changes
// nothing.
func (r *Repository) Publish(ctx context.Context, signedTargets []byte, artifacts fs.FS, now time.Time) error {
	return r.locked(func() error {
		s, err := r.state()
		if err != nil {
			return err
		}
		if s.stamp > 0 && bytes.Equal(s.targets, signedTargets) {
			return nil
		}
		return r.publish(ctx, s, signedTargets, artifacts, now)
	})
}

// PublishRoot makes the next root version public and signs snapshot and
// timestamp again. When the new root replaces the targets keys, targets
// metadata signed by the new ones has to be published right after; until then
// readers keep what they have.
func (r *Repository) PublishRoot(ctx context.Context, signedRoot []byte, now time.Time) error {
	return r.locked(func() error {
		s, err := r.state()
		if err != nil {
			return err
		}
		next, err := trust.NewTrusted(s.root, trust.Ed25519())
		if err != nil {
			return err
		}
		if err := next.UpdateRoot(signedRoot); err != nil {
			return err
		}
		if err := next.CheckRoot(now); err != nil {
			return err
		}
		if err := r.checkRoot(next.Root()); err != nil {
			return err
		}
		name := strconv.FormatInt(next.Root().Version, 10) + ".root.json"
		if err := r.write(ctx, name, signedRoot); err != nil {
			return err
		}
		if next.RecallTargets(s.targets) != nil {
			return nil
		}
		s.root = signedRoot
		return r.announce(ctx, s, now)
	})
}

// checkRoot refuses a root under which this process could not publish.
func (r *Repository) checkRoot(root *trust.Root) error {
	if !root.ConsistentSnapshot {
		return fmt.Errorf("%w: the root must ask for consistent snapshots", ErrPublished)
	}
	for role, signer := range map[string]Signer{"snapshot": r.online.Snapshot, "timestamp": r.online.Timestamp} {
		found := false
		for _, id := range root.Roles[role].KeyIDs {
			found = found || root.Keys[id] == signer.Public()
		}
		if !found {
			return fmt.Errorf("%w: the root does not name this portal's %s key", ErrPublished, role)
		}
	}
	return nil
}

// Renew signs timestamp and snapshot again when the timestamp is past half its
// life, or they do not verify under the newest root; renewed says whether it
// did. Call it every hour or so: readers refuse a repository whose timestamp
// has expired.
func (r *Repository) Renew(ctx context.Context, now time.Time) (renewed bool, err error) {
	err = r.locked(func() error {
		s, err := r.state()
		if err != nil {
			return err
		}
		if s.stamp == 0 {
			return fmt.Errorf("%w: nothing is published yet", ErrPublished)
		}
		if s.current && now.Before(s.stampExpires.Add(-TimestampLife/2)) {
			return nil
		}
		renewed = true
		return r.announce(ctx, s, now)
	})
	return renewed && err == nil, err
}

// Trusted returns the published state, verified as any reader would at now.
func (r *Repository) Trusted(now time.Time) (*trust.Trusted, error) {
	roots, err := r.roots()
	if err != nil {
		return nil, err
	}
	t, _, err := r.chain(roots[len(roots)-1], now)
	return t, err
}

// locked runs f while no other publication runs, here or in another process.
func (r *Repository) locked(f func() error) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lock, err := os.OpenFile(filepath.Join(r.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the repository: %w", err)
	}
	// Closing the file gives the lock back.
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking the repository: %w", err)
	}
	return f()
}

func (r *Repository) read(name string, max int64) (b []byte, err error) {
	file, err := r.files.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b, err = io.ReadAll(io.LimitReader(file, max+1))
	if err == nil && int64(len(b)) > max {
		err = blob.ErrTooLarge
	}
	return b, err
}

func (r *Repository) write(ctx context.Context, name string, b []byte) error {
	if err := r.files.Put(ctx, name, bytes.NewReader(b), blob.Want{Max: int64(len(b))}); err != nil {
		return fmt.Errorf("publishing %s: %w", name, err)
	}
	return nil
}

// fileMeta describes a metadata file to the file that announces it.
func fileMeta(version int64, b []byte) cjson.Value {
	return cjson.Object(
		cjson.F("version", cjson.Int(version)),
		cjson.F("length", cjson.Int(int64(len(b)))),
		cjson.F("hashes", cjson.Object(cjson.F("sha256", cjson.String(sha256Hex(b))))))
}
