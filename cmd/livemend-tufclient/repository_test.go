package main

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// content of a role's document that does not stand for itself.
type fields map[string]cjson.Value

// document is a role's metadata before it is signed.
type document struct {
	role    string
	version int64
	expires time.Time
	fields  fields
	signers []signer
}

// grant is what root or a delegating role says of a role's keys.
type grant struct {
	keys      []signer
	threshold int64
}

func (g grant) members() []cjson.Member {
	var ids []string
	for _, k := range g.keys {
		ids = append(ids, k.id)
	}
	return []cjson.Member{cjson.F("keyids", cjson.Strings(ids)), cjson.F("threshold", cjson.Int(g.threshold))}
}

func keysOf(grants ...grant) cjson.Value {
	var members []cjson.Member
	for _, g := range grants {
		for _, k := range g.keys {
			members = append(members, cjson.F(k.id, k.public.Value()))
		}
	}
	return cjson.Object(members...)
}

// announcement is what snapshot or timestamp says of a file.
type announcement struct {
	version int64
	sha256  string // "": neither hash nor length
	length  int64
}

func (a announcement) value() cjson.Value {
	members := []cjson.Member{cjson.F("version", cjson.Int(a.version))}
	if a.sha256 != "" {
		members = append(members, cjson.F("length", cjson.Int(a.length)),
			cjson.F("hashes", cjson.Object(cjson.F("sha256", cjson.String(a.sha256)))))
	}
	return cjson.Object(members...)
}

// delegation is a role that another one trusts with paths.
type delegation struct {
	name        string
	grant       grant
	paths       []string
	prefixes    []string
	terminating bool
}

func (d delegation) value() cjson.Value {
	rule := cjson.F("paths", cjson.Strings(d.paths))
	if d.prefixes != nil {
		rule = cjson.F("path_hash_prefixes", cjson.Strings(d.prefixes))
	}
	return cjson.Object(append(d.grant.members(),
		cjson.F("name", cjson.String(d.name)), cjson.F("terminating", cjson.Bool(d.terminating)), rule)...)
}

// repository is a simulated repository: documents that tests change, and what
// of them was published.
type repository struct {
	t          *testing.T
	docs       map[string]*document
	grants     map[string]*grant // of root
	delegates  map[string][]delegation
	announced  map[string]map[string]announcement // by snapshot and timestamp
	published  map[string][][]byte
	artifacts  map[string][]byte // by path
	consistent bool
	hashed     bool // announcements have hashes and lengths
	edit       func(role string, v cjson.Value) cjson.Value
	*server
}

const week = 7 * 24 * time.Hour

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t: t, consistent: true,
		docs: map[string]*document{}, grants: map[string]*grant{}, delegates: map[string][]delegation{},
		announced: map[string]map[string]announcement{"snapshot": {}, "timestamp": {}},
		published: map[string][][]byte{}, artifacts: map[string][]byte{}}
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		k := newKey(t)
		r.docs[role] = &document{role: role, version: 1, expires: time.Now().Add(4 * week), fields: fields{}, signers: []signer{k}}
		r.grants[role] = &grant{[]signer{k}, 1}
	}
	r.docs["targets"].fields["targets"] = cjson.Object()
	r.publish("root", "targets", "snapshot", "timestamp")
	r.server = serve(t, r)
	return r
}

// publish signs the roles and makes them what is served. All versions but the
// first are counted up.
func (r *repository) publish(roles ...string) {
	r.t.Helper()
	for _, role := range roles {
		if len(r.published[role]) > 0 {
			r.docs[role].version++
		}
		r.put(role)
	}
}

// put is publish without counting up.
func (r *repository) put(role string) {
	r.t.Helper()
	d := r.docs[role]
	b := r.sign(d)
	r.published[role] = append(r.published[role], b)
	a := announcement{version: d.version}
	if r.hashed {
		sum := sha256.Sum256(b)
		a.sha256, a.length = hex.EncodeToString(sum[:]), int64(len(b))
	}
	switch role {
	case "root", "timestamp":
	case "snapshot":
		r.announced["timestamp"]["snapshot.json"] = a
	default:
		r.announced["snapshot"][role+".json"] = a
	}
}

// value is the document as it is signed.
func (r *repository) value(d *document) cjson.Value {
	docType := d.role
	members := []cjson.Member{}
	switch d.role {
	case "root":
		var roles []cjson.Member
		var grants []grant
		for name, g := range r.grants {
			roles = append(roles, cjson.F(name, cjson.Object(g.members()...)))
			grants = append(grants, *g)
		}
		members = append(members, cjson.F("keys", keysOf(grants...)), cjson.F("roles", cjson.Object(roles...)),
			cjson.F("consistent_snapshot", cjson.Bool(r.consistent)))
	case "snapshot", "timestamp":
		var meta []cjson.Member
		for name, a := range r.announced[d.role] {
			meta = append(meta, cjson.F(name, a.value()))
		}
		members = append(members, cjson.F("meta", cjson.Object(meta...)))
	default:
		docType = "targets"
		if list := r.delegates[d.role]; list != nil {
			var roles []cjson.Value
			var grants []grant
			for _, delegated := range list {
				roles = append(roles, delegated.value())
				grants = append(grants, delegated.grant)
			}
			members = append(members, cjson.F("delegations", cjson.Object(
				cjson.F("keys", keysOf(grants...)), cjson.F("roles", cjson.Array(roles...)))))
		}
	}
	members = append(members, cjson.F("_type", cjson.String(docType)), cjson.F("spec_version", cjson.String("1.0.31")),
		cjson.F("version", cjson.Int(d.version)), cjson.F("expires", cjson.String(trust.FormatTime(d.expires))))
	for name, v := range d.fields {
		members = append(members, cjson.F(name, v))
	}
	v := cjson.Object(members...)
	if r.edit != nil {
		v = r.edit(d.role, v)
	}
	return v
}

func (r *repository) sign(d *document) []byte {
	e := trust.Envelope{Signed: r.value(d)}
	for _, s := range d.signers {
		e.Signatures = append(e.Signatures, trust.Signature{KeyID: s.id, Sig: s.sign(e.Message())})
	}
	return e.Encode()
}

// rotate gives a role of root new keys.
func (r *repository) rotate(role string) {
	r.t.Helper()
	k := newKey(r.t)
	r.grants[role] = &grant{[]signer{k}, 1}
	r.docs[role].signers = []signer{k}
}

// delegate lets a role trust another with paths; the role is made when it is new.
func (r *repository) delegate(from string, d delegation) {
	r.t.Helper()
	if d.grant.keys == nil {
		d.grant = grant{[]signer{newKey(r.t)}, 1}
	}
	if d.paths == nil && d.prefixes == nil {
		d.paths = []string{"*"}
	}
	if r.docs[d.name] == nil {
		r.docs[d.name] = &document{role: d.name, version: 1, expires: time.Now().Add(4 * week), fields: fields{"targets": cjson.Object()}}
	}
	r.docs[d.name].signers = append(r.docs[d.name].signers, d.grant.keys...)
	r.delegates[from] = append(r.delegates[from], d)
}

// add lists a target in a role and serves it.
func (r *repository) add(role, path, content string, hashes ...string) {
	r.t.Helper()
	if hashes == nil {
		hashes = []string{"sha256"}
	}
	var members []cjson.Member
	for _, h := range hashes {
		sum256, sum512 := sha256.Sum256([]byte(content)), sha512.Sum512([]byte(content))
		sum := sum512[:]
		if h == "sha256" {
			sum = sum256[:]
		}
		members = append(members, cjson.F(h, cjson.String(hex.EncodeToString(sum))))
	}
	entry := cjson.Object(cjson.F("hashes", cjson.Object(members...)), cjson.F("length", cjson.Int(int64(len(content)))))
	d := r.docs[role]
	d.fields["targets"] = cjson.Object(append(slices.Clone(d.fields["targets"].Members()), cjson.F(path, entry))...)
	r.artifacts[path] = []byte(content)
}

// all lists the delegated roles and targets, snapshot and timestamp last.
func (r *repository) all() []string {
	roles := slices.Sorted(maps.Keys(r.docs))
	roles = slices.DeleteFunc(roles, func(s string) bool { return s == "root" || s == "snapshot" || s == "timestamp" })
	return append(roles, "snapshot", "timestamp")
}

// set returns v with a member of it replaced, which the dotted path names.
func set(v cjson.Value, path string, to cjson.Value) cjson.Value {
	name, rest, more := strings.Cut(path, ".")
	if more {
		inner, _ := v.Get(name)
		to = set(inner, rest, to)
	}
	return cjson.Object(append(slices.Clone(v.Members()), cjson.F(name, to))...)
}
