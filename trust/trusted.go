package trust

import (
	"iter"
	"strconv"
	"time"

	"livemend.dev/livemend/internal/cjson"
)

// Trusted is the state of a TUF client: what it believes so far. Call in the
// order of the client workflow: UpdateRoot until there is no newer one,
// CheckRoot, RecallTimestamp and RecallSnapshot with what was stored, then
// UpdateTimestamp, UpdateSnapshot, UpdateTargets. A refused file changes
// nothing. Reading is safe from several goroutines once updating is over.
type Trusted struct {
	schemes   Schemes
	root      *Root
	oldStamp  *timestamp // floor
	oldSnap   *snapshot  // floor
	timestamp *timestamp
	snapshot  *snapshot
	targets   *targets
}

type timestamp struct {
	head
	snapshot fileMeta
}

type snapshot struct {
	head
	files map[string]fileMeta
}

type targets struct {
	head
	list        []Target    // in order of their paths
	delegations cjson.Value // null when there are none; a Search reads them
}

// NewTrusted starts from a root that the caller trusts already. Its expiry is
// not looked at: it may be followed by a newer one. See CheckRoot.
func NewTrusted(root []byte, schemes Schemes) (*Trusted, error) {
	r, err := ParseRoot(root, schemes)
	if err != nil {
		return nil, err
	}
	return &Trusted{schemes: schemes, root: r}, nil
}

// UpdateRoot accepts the next root version: signed by enough keys of the
// trusted root and of the new one. Its expiry is not looked at.
func (t *Trusted) UpdateRoot(b []byte) error {
	if t.oldStamp != nil || t.oldSnap != nil || t.timestamp != nil || t.targets != nil {
		return refuse("root metadata", ErrOrder, "")
	}
	r, err := t.root.next(b, t.schemes)
	if err != nil {
		return err
	}
	t.root = r
	return nil
}

// CheckRoot returns ErrExpired when the root is past its time at now.
func (t *Trusted) CheckRoot(now time.Time) error {
	return head{expires: t.root.Expires}.fresh(roleRoot, now)
}

// verify parses metadata of a role other than root and checks its signatures.
func (t *Trusted) verify(role string, b []byte, max int) (cjson.Cursor, head, error) {
	e, c, h, err := open(role, b, max)
	if err != nil {
		return c, h, err
	}
	return c, h, e.verify(t.root.Keys, t.root.Roles[role], t.schemes)
}

func (t *Trusted) readTimestamp(b []byte) (*timestamp, error) {
	c, h, err := t.verify(roleTimestamp, b, MaxTimestamp)
	if err != nil {
		return nil, err
	}
	meta, err := parseTimestamp(c)
	if err != nil {
		return nil, err
	}
	return &timestamp{h, meta}, nil
}

func (t *Trusted) readSnapshot(b []byte) (*snapshot, error) {
	c, h, err := t.verify(roleSnapshot, b, MaxSnapshot)
	if err != nil {
		return nil, err
	}
	files, err := parseSnapshot(c)
	if err != nil {
		return nil, err
	}
	return &snapshot{h, files}, nil
}

func (t *Trusted) readTargets(b []byte) (*targets, error) {
	c, h, err := t.verify(roleTargets, b, MaxTargets)
	if err != nil {
		return nil, err
	}
	return parseTargets("targets metadata", c, h)
}

// RecallTimestamp takes the timestamp that was stored last as a floor: nothing
// older is accepted after it. An error means that its keys were replaced since
// (which is how a repository recovers from a version that ran ahead) or that
// it was damaged; go on without it.
func (t *Trusted) RecallTimestamp(b []byte) error {
	if t.timestamp != nil {
		return refuse("timestamp metadata", ErrOrder, "")
	}
	old, err := t.readTimestamp(b)
	if err != nil {
		return err
	}
	t.oldStamp = old
	return nil
}

// UpdateTimestamp accepts a timestamp that is not older than the recalled one.
// changed is false when it has the recalled one's version: then the recalled
// one is in force, and is what stays stored.
func (t *Trusted) UpdateTimestamp(b []byte, now time.Time) (changed bool, err error) {
	const what = "timestamp metadata"
	if t.timestamp != nil {
		return false, refuse(what, ErrOrder, "")
	}
	if err := t.CheckRoot(now); err != nil {
		return false, err
	}
	fresh, err := t.readTimestamp(b)
	if err != nil {
		return false, err
	}
	if old := t.oldStamp; old != nil {
		switch {
		case fresh.version < old.version:
			return false, refuse(what, ErrRollback, versions(fresh.version, old.version))
		case fresh.version == old.version:
			fresh = old
		case fresh.snapshot.version < old.snapshot.version:
			return false, refuse(what, ErrRollback, "snapshot "+versions(fresh.snapshot.version, old.snapshot.version))
		}
	}
	if err := fresh.fresh(roleTimestamp, now); err != nil {
		return false, err
	}
	t.timestamp = fresh
	return fresh != t.oldStamp, nil
}

// RecallSnapshot takes the snapshot that was stored last as a floor: no file it
// lists may be missing from the next one or be older there. For an error see
// RecallTimestamp.
func (t *Trusted) RecallSnapshot(b []byte) error {
	if t.snapshot != nil {
		return refuse("snapshot metadata", ErrOrder, "")
	}
	old, err := t.readSnapshot(b)
	if err != nil {
		return err
	}
	t.oldSnap = old
	return nil
}

// UpdateSnapshot accepts the snapshot that the timestamp announces.
func (t *Trusted) UpdateSnapshot(b []byte, now time.Time) error {
	const what = "snapshot metadata"
	if t.timestamp == nil || t.snapshot != nil {
		return refuse(what, ErrOrder, "")
	}
	announced := t.timestamp.snapshot
	if err := announced.check(what, b); err != nil {
		return err
	}
	s, err := t.readSnapshot(b)
	if err != nil {
		return err
	}
	if s.version != announced.version {
		return refuse(what, ErrVersion, announcedVersion(s.version, announced.version))
	}
	if t.oldSnap != nil {
		for name, old := range t.oldSnap.files {
			file, ok := s.files[name]
			if !ok {
				return refuse(what, ErrRollback, "a file that was listed before is not listed any more")
			}
			if file.version < old.version {
				return refuse(what, ErrRollback, versions(file.version, old.version)+" of a listed file")
			}
		}
	}
	if err := s.fresh(roleSnapshot, now); err != nil {
		return err
	}
	t.snapshot = s
	return nil
}

func announcedVersion(got, want int64) string {
	return "version " + strconv.FormatInt(got, 10) + ", announced is " + strconv.FormatInt(want, 10)
}

// UpdateTargets accepts the targets metadata that the snapshot announces.
func (t *Trusted) UpdateTargets(b []byte, now time.Time) error {
	const what = "targets metadata"
	if t.snapshot == nil || t.targets != nil {
		return refuse(what, ErrOrder, "")
	}
	announced := t.snapshot.files[targetsFile]
	if err := announced.check(what, b); err != nil {
		return err
	}
	fresh, err := t.readTargets(b)
	if err != nil {
		return err
	}
	if fresh.version != announced.version {
		return refuse(what, ErrVersion, announcedVersion(fresh.version, announced.version))
	}
	if err := fresh.fresh(roleTargets, now); err != nil {
		return err
	}
	t.targets = fresh
	return nil
}

// RecallTargets takes targets metadata that was admitted before and verifies it
// by the signatures of the root's targets role alone: no announcement, no
// expiry. It is for the boot of a system without a network, and for a publisher
// who is about to announce it. Never use it to admit something new.
func (t *Trusted) RecallTargets(b []byte) error {
	if t.timestamp != nil || t.targets != nil {
		return refuse("targets metadata", ErrOrder, "")
	}
	old, err := t.readTargets(b)
	if err != nil {
		return err
	}
	t.targets = old
	return nil
}

// Root returns the root in force. The caller must not change it.
func (t *Trusted) Root() *Root { return t.root }

// SnapshotName returns the name of the announced snapshot file, "" before there
// is a timestamp.
func (t *Trusted) SnapshotName() string {
	if t.timestamp == nil {
		return ""
	}
	return t.fileName(t.timestamp.snapshot.version, snapshotFile)
}

// SnapshotVersion returns the version of the announced snapshot, 0 before there
// is a timestamp.
func (t *Trusted) SnapshotVersion() int64 {
	if t.timestamp == nil {
		return 0
	}
	return t.timestamp.snapshot.version
}

// TimestampVersion returns the version of the timestamp in force, 0 before.
func (t *Trusted) TimestampVersion() int64 {
	if t.timestamp == nil {
		return 0
	}
	return t.timestamp.version
}

// Expires returns when the first of the files in force is past its time.
func (t *Trusted) Expires() time.Time {
	first := t.root.Expires
	sooner := func(h head) {
		if h.expires.Before(first) {
			first = h.expires
		}
	}
	if t.timestamp != nil {
		sooner(t.timestamp.head)
	}
	if t.snapshot != nil {
		sooner(t.snapshot.head)
	}
	if t.targets != nil {
		sooner(t.targets.head)
	}
	return first
}

// TimestampExpires returns when the timestamp in force is past its time, the
// zero time before there is one.
func (t *Trusted) TimestampExpires() time.Time {
	if t.timestamp == nil {
		return time.Time{}
	}
	return t.timestamp.expires
}

// SnapshotLimit returns the most bytes that the announced snapshot may have.
func (t *Trusted) SnapshotLimit() int64 {
	if t.timestamp == nil {
		return 0
	}
	return t.timestamp.snapshot.limit(MaxSnapshot)
}

// TargetsName returns the name of the announced targets file, "" before there is
// a snapshot.
func (t *Trusted) TargetsName() string {
	if t.snapshot == nil {
		return ""
	}
	return t.fileName(t.snapshot.files[targetsFile].version, targetsFile)
}

// TargetsLimit returns the most bytes that the announced targets file may have.
func (t *Trusted) TargetsLimit() int64 {
	if t.snapshot == nil {
		return 0
	}
	return t.snapshot.files[targetsFile].limit(MaxTargets)
}

func (m fileMeta) limit(max int64) int64 {
	if m.length >= 0 && m.length < max {
		return m.length
	}
	return max
}

func (t *Trusted) fileName(version int64, name string) string {
	if !t.root.ConsistentSnapshot {
		return name
	}
	return strconv.FormatInt(version, 10) + "." + name
}

// TargetsVersion returns the version of the targets metadata in force, 0 before.
func (t *Trusted) TargetsVersion() int64 {
	if t.targets == nil {
		return 0
	}
	return t.targets.version
}

// Target returns what the targets role itself says of path, or ErrNoTarget. A
// Search looks in delegated roles too.
func (t *Trusted) Target(path string) (Target, error) {
	if t.targets != nil {
		if target, ok := t.targets.find(path); ok {
			return target, nil
		}
	}
	return Target{}, refuse("target "+strconv.Quote(path), ErrNoTarget, "")
}

func (t *targets) find(path string) (Target, bool) {
	list := t.list
	lo, hi := 0, len(list)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if list[mid].Path < path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(list) || list[lo].Path != path {
		return Target{}, false
	}
	return list[lo], true
}

// Targets iterates over all targets in order of their paths.
func (t *Trusted) Targets() iter.Seq[Target] {
	return func(yield func(Target) bool) {
		if t.targets == nil {
			return
		}
		for _, target := range t.targets.list {
			if !yield(target) {
				return
			}
		}
	}
}
