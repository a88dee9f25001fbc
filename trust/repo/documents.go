package repo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// maxDocument bounds a document that is being edited or signed, in bytes.
const maxDocument = trust.MaxTargets

// RootSpec describes root metadata to be made.
type RootSpec struct {
	Version          int64
	Expires          time.Time
	RootKeys         []trust.PublicKey
	RootThreshold    int
	TargetsKeys      []trust.PublicKey
	TargetsThreshold int
	Snapshot         trust.PublicKey
	Timestamp        trust.PublicKey
}

// NewRoot returns unsigned root metadata. Its error wraps ErrSpec.
func NewRoot(spec RootSpec) ([]byte, error) {
	keys := make(map[string]trust.PublicKey)
	root := trust.Root{
		Version: spec.Version, Expires: spec.Expires, ConsistentSnapshot: true, Keys: keys,
		Roles: make(map[string]trust.Role, 4),
	}
	for _, r := range []struct {
		name      string
		keys      []trust.PublicKey
		threshold int
	}{
		{"root", spec.RootKeys, spec.RootThreshold},
		{"targets", spec.TargetsKeys, spec.TargetsThreshold},
		{"snapshot", []trust.PublicKey{spec.Snapshot}, 1},
		{"timestamp", []trust.PublicKey{spec.Timestamp}, 1},
	} {
		role, err := newRole(r.name, r.keys, r.threshold, keys)
		if err != nil {
			return nil, err
		}
		root.Roles[r.name] = role
	}
	if spec.Version < 1 || spec.Expires.IsZero() {
		return nil, fmt.Errorf("%w: a version of at least 1 and an expiry are needed", ErrSpec)
	}
	return unsigned(root.Value()), nil
}

func newRole(name string, keys []trust.PublicKey, threshold int, all map[string]trust.PublicKey) (trust.Role, error) {
	role := trust.Role{Threshold: threshold}
	for _, k := range keys {
		if k.Public == "" {
			return role, fmt.Errorf("%w: role %s has an empty key", ErrSpec, name)
		}
		id := KeyID(k)
		if slices.Contains(role.KeyIDs, id) {
			return role, fmt.Errorf("%w: role %s has the same key twice", ErrSpec, name)
		}
		role.KeyIDs = append(role.KeyIDs, id)
		all[id] = k
	}
	return role, enough(name, len(keys), threshold)
}

// DirectorSpec describes a director root to be made.
type DirectorSpec struct {
	Version           int64
	Expires           time.Time
	RootKeys          []trust.PublicKey
	RootThreshold     int
	DirectorKeys      []trust.PublicKey
	DirectorThreshold int
	ChannelKeys       []string // X25519 public keys, lower-case hex
}

// NewDirectorRoot returns an unsigned director root. Its error wraps ErrSpec.
func NewDirectorRoot(spec DirectorSpec) ([]byte, error) {
	keys := make(map[string]trust.PublicKey)
	root, err := newRole("root", spec.RootKeys, spec.RootThreshold, keys)
	if err != nil {
		return nil, err
	}
	director, err := newRole("director", spec.DirectorKeys, spec.DirectorThreshold, keys)
	if err != nil {
		return nil, err
	}
	if spec.Version < 1 || spec.Expires.IsZero() {
		return nil, fmt.Errorf("%w: a version of at least 1 and an expiry are needed", ErrSpec)
	}
	r := trust.DirectorRoot{
		Version: spec.Version, Expires: spec.Expires, Keys: keys,
		Root: root, Director: director, ChannelKeys: spec.ChannelKeys,
	}
	return unsigned(r.Value()), nil
}

// NewTargets returns unsigned, empty targets metadata of version 1.
func NewTargets(expires time.Time) ([]byte, error) {
	return unsigned(cjson.Object(header("targets", 1, expires, cjson.F("targets", cjson.Object()))...)), nil
}

// AddTarget returns the next version of a targets document with t added or
// replaced. The signatures are gone: sign again.
func AddTarget(doc []byte, t trust.Target, expires time.Time) ([]byte, error) {
	if !trust.ValidPath(t.Path) || len(t.SHA256) != 64 || t.Length < 0 {
		return nil, fmt.Errorf("%w: target %q: path, length or SHA-256 is not valid", ErrSpec, t.Path)
	}
	return editTargets(doc, expires, func(members []cjson.Member) ([]cjson.Member, error) {
		return append(slices.Clone(members), cjson.F(t.Path, t.Value())), nil
	})
}

// RemoveTarget returns the next version of a targets document without path: the
// withdrawal of what it names. The signatures are gone: sign again.
func RemoveTarget(doc []byte, path string, expires time.Time) ([]byte, error) {
	return editTargets(doc, expires, func(members []cjson.Member) ([]cjson.Member, error) {
		left := slices.DeleteFunc(slices.Clone(members), func(m cjson.Member) bool { return m.Name == path })
		if len(left) == len(members) {
			return nil, fmt.Errorf("%w: no target %q", ErrSpec, path)
		}
		return left, nil
	})
}

func editTargets(doc []byte, expires time.Time, edit func([]cjson.Member) ([]cjson.Member, error)) ([]byte, error) {
	e, err := trust.ParseEnvelope(doc, maxDocument)
	if err != nil {
		return nil, err
	}
	c := cjson.Fields(e.Signed)
	docType, version, targets := c.Text("_type", 64), c.Int("version"), c.Value("targets")
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if docType != "targets" || targets.Kind() != cjson.Map {
		return nil, fmt.Errorf("%w: it is not targets metadata", ErrDocument)
	}
	members, err := edit(targets.Members())
	if err != nil {
		return nil, err
	}
	// Fields that this version does not know, such as delegations, are kept.
	return unsigned(cjson.Object(append(slices.Clone(e.Signed.Members()),
		header("targets", version+1, expires, cjson.F("targets", cjson.Object(members...)))...)...)), nil
}

func header(role string, version int64, expires time.Time, more ...cjson.Member) []cjson.Member {
	return append([]cjson.Member{
		cjson.F("_type", cjson.String(role)),
		cjson.F("spec_version", cjson.String(trust.SpecVersion)),
		cjson.F("version", cjson.Int(version)),
		cjson.F("expires", cjson.String(trust.FormatTime(expires))),
	}, more...)
}

func unsigned(v cjson.Value) []byte { return (&trust.Envelope{Signed: v}).Encode() }

// Sign adds a signature by each signer to a document, or replaces the one that
// the signer made before. Several people can do this one after the other, each
// on a machine of their own.
func Sign(ctx context.Context, doc []byte, signers ...Signer) ([]byte, error) {
	e, err := trust.ParseEnvelope(doc, maxDocument)
	if err != nil {
		return nil, err
	}
	message := e.Message()
	for _, s := range signers {
		id := KeyID(s.Public())
		sig, err := s.Sign(ctx, message)
		if err != nil {
			return nil, fmt.Errorf("signing with key %.12s…: %w", id, err)
		}
		e.Signatures = slices.DeleteFunc(e.Signatures, func(s trust.Signature) bool { return s.KeyID == id })
		e.Signatures = append(e.Signatures, trust.Signature{KeyID: id, Sig: sig})
	}
	return e.Encode(), nil
}
