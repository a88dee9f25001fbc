package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

var (
	now   = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	later = now.Add(24 * time.Hour)
)

// key is a signing key that is the same in every run.
type key struct {
	id      string
	private ed25519.PrivateKey
}

func newKey(name string) key {
	seed := sha256.Sum256([]byte(name))
	return key{id: "id-of-" + name, private: ed25519.NewKeyFromSeed(seed[:])}
}

func (k key) public() trust.PublicKey {
	return trust.PublicKey{Type: "ed25519", Scheme: "ed25519",
		Public: hex.EncodeToString(k.private.Public().(ed25519.PublicKey))}
}

func keys(names ...string) []key {
	out := make([]key, len(names))
	for i, n := range names {
		out[i] = newKey(n)
	}
	return out
}

func sign(v cjson.Value, by ...key) []byte {
	e := trust.Envelope{Signed: v}
	for _, k := range by {
		e.Signatures = append(e.Signatures, trust.Signature{KeyID: k.id, Sig: ed25519.Sign(k.private, e.Message())})
	}
	return e.Encode()
}

// set returns v with the value at the path of names replaced.
func set(v, to cjson.Value, names ...string) cjson.Value {
	if len(names) == 0 {
		return to
	}
	inner, _ := v.Get(names[0])
	members := append([]cjson.Member{}, v.Members()...)
	return cjson.Object(append(members, cjson.F(names[0], set(inner, to, names[1:]...)))...)
}

// drop returns v without the member at the path of names.
func drop(v cjson.Value, names ...string) cjson.Value {
	var members []cjson.Member
	for _, m := range v.Members() {
		switch {
		case m.Name != names[0]:
			members = append(members, m)
		case len(names) > 1:
			members = append(members, cjson.F(m.Name, drop(m.Value, names[1:]...)))
		}
	}
	return cjson.Object(members...)
}

func doc(role string, version int64, more ...cjson.Member) cjson.Value {
	return cjson.Object(append([]cjson.Member{
		cjson.F("_type", cjson.String(role)),
		cjson.F("spec_version", cjson.String("1.0.31")),
		cjson.F("version", cjson.Int(version)),
		cjson.F("expires", cjson.String(trust.FormatTime(later))),
	}, more...)...)
}

func meta(version int64, b []byte) cjson.Value {
	sum := sha256.Sum256(b)
	return cjson.Object(
		cjson.F("version", cjson.Int(version)),
		cjson.F("length", cjson.Int(int64(len(b)))),
		cjson.F("hashes", cjson.Object(cjson.F("sha256", cjson.String(hex.EncodeToString(sum[:]))))))
}

type roleKeys struct {
	keys      []key
	threshold int64
}

func rootDoc(version int64, roles map[string]roleKeys) cjson.Value {
	var keyMembers, roleMembers []cjson.Member
	for name, r := range roles {
		var ids []string
		for _, k := range r.keys {
			ids = append(ids, k.id)
			keyMembers = append(keyMembers, cjson.F(k.id, k.public().Value()))
		}
		roleMembers = append(roleMembers, cjson.F(name, cjson.Object(
			cjson.F("keyids", cjson.Strings(ids)), cjson.F("threshold", cjson.Int(r.threshold)))))
	}
	return doc("root", version,
		cjson.F("consistent_snapshot", cjson.Bool(true)),
		cjson.F("keys", cjson.Object(keyMembers...)),
		cjson.F("roles", cjson.Object(roleMembers...)))
}

func portalRoles() map[string]roleKeys {
	return map[string]roleKeys{
		"root":      {keys("r1", "r2", "r3"), 2},
		"targets":   {keys("t1", "t2"), 2},
		"snapshot":  {keys("s"), 1},
		"timestamp": {keys("ts"), 1},
	}
}

const content = "the content of the patch"

func targetFor(path, content string) trust.Target {
	sum := sha256.Sum256([]byte(content))
	return trust.Target{Path: path, Length: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// part is a document before it is signed, and what happens to it on its way.
type part struct {
	value   cjson.Value
	signers []key
	edit    func(cjson.Value) cjson.Value // before signing
	tamper  func([]byte) []byte           // after it was signed and announced
}

func (p part) signed() []byte {
	v := p.value
	if p.edit != nil {
		v = p.edit(v)
	}
	return sign(v, p.signers...)
}

func (p part) delivered() []byte {
	b := p.signed()
	if p.tamper != nil {
		b = p.tamper(bytes.Clone(b))
	}
	return b
}

// world is a repository and what a client remembers of it.
type world struct {
	roots     []part // the first one is pinned
	timestamp part
	snapshot  part
	targets   part
	oldStamp  *part
	oldSnap   *part
	at        time.Time
	unlinked  bool // snapshot and timestamp announce what is in their values already
}

func newWorld() *world {
	return &world{
		at:    now,
		roots: []part{{value: rootDoc(1, portalRoles()), signers: keys("r1", "r2")}},
		targets: part{
			value:   doc("targets", 3, cjson.F("targets", cjson.Object(cjson.F("user/a.lmp", targetFor("user/a.lmp", content).Value())))),
			signers: keys("t1", "t2"),
		},
		snapshot:  part{value: doc("snapshot", 5), signers: keys("s")},
		timestamp: part{value: doc("timestamp", 7), signers: keys("ts")},
	}
}

// run goes through the client workflow and returns what is trusted then.
func (w *world) run(schemes trust.Schemes) (*trust.Trusted, error) {
	t, err := trust.NewTrusted(w.roots[0].delivered(), schemes)
	if err != nil {
		return nil, err
	}
	for _, r := range w.roots[1:] {
		if err := t.UpdateRoot(r.delivered()); err != nil {
			return t, err
		}
	}
	if err := t.CheckRoot(w.at); err != nil {
		return t, err
	}
	if !w.unlinked {
		w.link()
	}
	if w.oldStamp != nil {
		if err := t.RecallTimestamp(w.oldStamp.delivered()); err != nil {
			return t, err
		}
	}
	if _, err := t.UpdateTimestamp(w.timestamp.delivered(), w.at); err != nil {
		return t, err
	}
	if w.oldSnap != nil {
		if err := t.RecallSnapshot(w.oldSnap.delivered()); err != nil {
			return t, err
		}
	}
	if err := t.UpdateSnapshot(w.snapshot.delivered(), w.at); err != nil {
		return t, err
	}
	return t, t.UpdateTargets(w.targets.delivered(), w.at)
}

// link lets snapshot and timestamp announce what follows.
func (w *world) link() {
	version := func(p part) int64 {
		v := p.value
		if p.edit != nil {
			v = p.edit(v)
		}
		n, _ := v.Get("version")
		i, _ := n.Int()
		return i
	}
	w.snapshot.value = set(w.snapshot.value, meta(version(w.targets), w.targets.signed()), "meta", "targets.json")
	w.timestamp.value = set(w.timestamp.value, meta(version(w.snapshot), w.snapshot.signed()), "meta", "snapshot.json")
}

func mustTrust(t *testing.T, w *world) *trust.Trusted {
	t.Helper()
	trusted, err := w.run(trust.Ed25519())
	if err != nil {
		t.Fatalf("a good repository is refused: %v", err)
	}
	return trusted
}

var expired = cjson.String("2026-11-23T12:00:00Z") // exactly now

// changeByte returns a change of a document on its way.
func changeByte(old, to string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(to), 1) }
}
