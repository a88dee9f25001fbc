package trust

import (
	"strconv"
	"time"

	"livemend.dev/livemend/internal/cjson"
)

// Root is TUF root metadata that was verified with its own keys. The caller
// must not change it.
type Root struct {
	Version            int64
	Expires            time.Time
	ConsistentSnapshot bool
	Keys               map[string]PublicKey
	Roles              map[string]Role // root, timestamp, snapshot, targets
}

// ParseRoot reads root metadata and verifies it with its own keys. Whether the
// root itself is to be trusted is for the caller to know.
func ParseRoot(b []byte, schemes Schemes) (*Root, error) {
	e, r, err := parseRoot(b)
	if err != nil {
		return nil, err
	}
	if err := e.verify(r.Keys, r.Roles[roleRoot], schemes); err != nil {
		return nil, err
	}
	return r, nil
}

func parseRoot(b []byte) (*Envelope, *Root, error) {
	e, c, h, err := open(roleRoot, b, MaxRoot)
	if err != nil {
		return nil, nil, err
	}
	r := &Root{
		Version:            h.version,
		Expires:            h.expires,
		ConsistentSnapshot: c.Has("consistent_snapshot") && c.Bool("consistent_snapshot"),
		Keys:               parseKeys(c),
		Roles:              make(map[string]Role, 4),
	}
	roles := c.Object("roles")
	for _, name := range []string{roleRoot, roleTimestamp, roleSnapshot, roleTargets} {
		r.Roles[name] = parseRole(roles, name)
	}
	if err := c.Err(); err != nil {
		return nil, nil, refuse("root metadata", ErrMalformed, err.Error())
	}
	return e, r, nil
}

// next verifies b as the root that follows r: signed by enough of the old keys
// and of the new ones, and exactly one version higher.
func (r *Root) next(b []byte, schemes Schemes) (*Root, error) {
	e, n, err := parseRoot(b)
	if err != nil {
		return nil, err
	}
	if err := e.verify(r.Keys, r.Roles[roleRoot], schemes); err != nil {
		return nil, err
	}
	if err := e.verify(n.Keys, n.Roles[roleRoot], schemes); err != nil {
		return nil, err
	}
	if err := follows("root metadata", r.Version, n.Version); err != nil {
		return nil, err
	}
	return n, nil
}

func follows(what string, old, next int64) error {
	switch {
	case next < old:
		return refuse(what, ErrRollback, versions(next, old))
	case next-1 != old:
		return refuse(what, ErrVersion, versions(next, old)+"; the next one is wanted")
	}
	return nil
}

func versions(got, had int64) string {
	return "version " + strconv.FormatInt(got, 10) + ", trusted is " + strconv.FormatInt(had, 10)
}

// Value returns the key and role tables of root metadata as its signed value;
// package trust/repo signs it.
func (r *Root) Value() cjson.Value {
	roles := make([]cjson.Member, 0, len(r.Roles))
	for name, role := range r.Roles {
		roles = append(roles, cjson.F(name, role.value()))
	}
	return cjson.Object(
		cjson.F("_type", cjson.String(roleRoot)),
		cjson.F("spec_version", cjson.String(SpecVersion)),
		cjson.F("version", cjson.Int(r.Version)),
		cjson.F("expires", cjson.String(FormatTime(r.Expires))),
		cjson.F("consistent_snapshot", cjson.Bool(r.ConsistentSnapshot)),
		cjson.F("keys", keysValue(r.Keys)),
		cjson.F("roles", cjson.Object(roles...)))
}

// SpecVersion is what this package writes into spec_version.
const SpecVersion = "1.0.34"

func (r Role) value() cjson.Value {
	return cjson.Object(
		cjson.F("keyids", cjson.Strings(r.KeyIDs)),
		cjson.F("threshold", cjson.Int(int64(r.Threshold))))
}

func keysValue(keys map[string]PublicKey) cjson.Value {
	members := make([]cjson.Member, 0, len(keys))
	for id, k := range keys {
		members = append(members, cjson.F(id, k.Value()))
	}
	return cjson.Object(members...)
}
