package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// always is a time at which nothing has expired: what was published is read
// back however old it is, and then signed anew.
var always = time.Unix(0, 0)

// state is what is published now. Versions are 0 before the first publication.
type state struct {
	root           []byte // newest
	targets        []byte
	stamp          int64 // version of the timestamp
	snap           int64
	targetsVersion int64
	stampExpires   time.Time
	listed         *trust.Trusted // nil before the first publication
	current        bool           // it verifies under the newest root
}

// roots returns all published roots, verified as a chain from the first.
func (r *Repository) roots() ([][]byte, error) {
	first, err := r.read("1.root.json", trust.MaxRoot)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, fmt.Errorf("%w: it has no root yet", ErrPublished)
	}
	if err != nil {
		return nil, err
	}
	t, err := trust.NewTrusted(first, trust.Ed25519())
	if err != nil {
		return nil, err
	}
	roots := [][]byte{first}
	for {
		next, err := r.read(strconv.FormatInt(t.Root().Version+1, 10)+".root.json", trust.MaxRoot)
		if errors.Is(err, blob.ErrNotFound) {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		if err := t.UpdateRoot(next); err != nil {
			return nil, err
		}
		roots = append(roots, next)
	}
}

// state reads what is published. The root may have been replaced since, so it
// is looked for under the newest root that verifies it.
func (r *Repository) state() (*state, error) {
	roots, err := r.roots()
	if err != nil {
		return nil, err
	}
	s := &state{root: roots[len(roots)-1]}
	for i := len(roots) - 1; i >= 0; i-- {
		var t *trust.Trusted
		t, s.targets, err = r.chain(roots[i], always)
		if errors.Is(err, errNoTimestamp) {
			return s, nil
		}
		if err != nil {
			continue
		}
		s.stamp, s.snap, s.targetsVersion = t.TimestampVersion(), t.SnapshotVersion(), t.TargetsVersion()
		s.stampExpires = t.TimestampExpires()
		s.listed, s.current = t, i == len(roots)-1
		return s, nil
	}
	return nil, fmt.Errorf("the published files do not verify: restore the repository's folder from a copy: %w", err)
}

var errNoTimestamp = errors.New("no timestamp is published yet")

// chain verifies the published files under root and returns the targets file too.
func (r *Repository) chain(root []byte, now time.Time) (*trust.Trusted, []byte, error) {
	t, err := trust.NewTrusted(root, trust.Ed25519())
	if err != nil {
		return nil, nil, err
	}
	b, err := r.read(timestampFile, trust.MaxTimestamp)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, nil, errNoTimestamp
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := t.UpdateTimestamp(b, now); err != nil {
		return nil, nil, err
	}
	if b, err = r.read(t.SnapshotName(), trust.MaxSnapshot); err != nil {
		return nil, nil, err
	}
	if err := t.UpdateSnapshot(b, now); err != nil {
		return nil, nil, err
	}
	if b, err = r.read(t.TargetsName(), trust.MaxTargets); err != nil {
		return nil, nil, err
	}
	return t, b, t.UpdateTargets(b, now)
}

// announce signs a new snapshot and a new timestamp for s.targets and publishes
// them, the timestamp last, after they verified as readers will see them.
func (r *Repository) announce(ctx context.Context, s *state, now time.Time) error {
	t, err := trust.NewTrusted(s.root, trust.Ed25519())
	if err != nil {
		return err
	}
	snap, err := r.sign(ctx, r.online.Snapshot, header("snapshot", s.snap+1, now.Add(SnapshotLife),
		cjson.F("meta", cjson.Object(cjson.F("targets.json", fileMeta(s.targetsVersion, s.targets)))))...)
	if err != nil {
		return err
	}
	stamp, err := r.sign(ctx, r.online.Timestamp, header("timestamp", s.stamp+1, now.Add(TimestampLife),
		cjson.F("meta", cjson.Object(cjson.F("snapshot.json", fileMeta(s.snap+1, snap)))))...)
	if err != nil {
		return err
	}
	if _, err := t.UpdateTimestamp(stamp, now); err != nil {
		return err
	}
	if err := t.UpdateSnapshot(snap, now); err != nil {
		return err
	}
	if err := t.UpdateTargets(s.targets, now); err != nil {
		return err
	}
	if err := r.write(ctx, t.TargetsName(), s.targets); err != nil {
		return err
	}
	if err := r.write(ctx, t.SnapshotName(), snap); err != nil {
		return err
	}
	return r.write(ctx, timestampFile, stamp)
}

func (r *Repository) sign(ctx context.Context, signer Signer, members ...cjson.Member) ([]byte, error) {
	return Sign(ctx, unsigned(cjson.Object(members...)), signer)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
