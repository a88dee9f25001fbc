package trust_test

import (
	"bytes"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// TestEveryFlippedBitAndEveryCut changes each bit of each signed document and
// cuts each at every length. The reader must refuse, or read the very content
// that was signed (a change of a signature's unused field, for example). Of the
// bundle, which is two documents that are tried by themselves, it takes every
// seventh.
func TestEveryFlippedBitAndEveryCut(t *testing.T) {
	w := newWorld()
	w.roots[0].signers = keys("r1", "r2") // exactly the threshold
	w.link()
	start, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	// Nothing but the signatures protects these: no length, no hash.
	bare := newGraph(edge{from: "targets", to: "A"})
	bare.give("A", "file", content)
	bare.snapshot.value = set(bare.snapshot.value, cjson.Object(
		cjson.F("A.json", version(1)), cjson.F("targets.json", version(3))), "meta")
	bare.timestamp.value = set(bare.timestamp.value, version(5), "meta", "snapshot.json")
	bare.unlinked = true
	stamped := *start
	if _, err := stamped.UpdateTimestamp(bare.timestamp.signed(), now); err != nil {
		t.Fatal(err)
	}
	listed := stamped
	if err := listed.UpdateSnapshot(bare.snapshot.signed(), now); err != nil {
		t.Fatal(err)
	}
	delegating := listed
	if err := delegating.UpdateTargets(bare.targets.signed(), now); err != nil {
		t.Fatal(err)
	}
	second := sign(rootDoc(2, portalRoles()), keys("r1", "r3")...)
	director := directorRoot(t)
	directorBytes := sign(directorDoc(1, roleKeys{keys("d1", "d2", "d3"), 2}, roleKeys{keys("dir"), 1}), keys("d1", "d3")...)
	m := manifest()
	bundle, err := trust.NewBundle(directorBytes, w.roots[0].signed(), []string{channel}, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	sealed := sign(cjson.Object(cjson.F("outcome", cjson.String("done"))), newKey("agent"))
	for name, d := range map[string]struct {
		b      []byte
		accept func([]byte) bool
	}{
		"root": {w.roots[0].signed(), func(b []byte) bool {
			_, err := trust.ParseRoot(b, trust.Ed25519())
			return err == nil
		}},
		"timestamp": {w.timestamp.signed(), func(b []byte) bool {
			next := *start
			_, err := next.UpdateTimestamp(b, now)
			return err == nil
		}},
		"next root": {second, func(b []byte) bool {
			next := *start
			return next.UpdateRoot(b) == nil
		}},
		"snapshot": {bare.snapshot.signed(), func(b []byte) bool {
			next := stamped
			return next.UpdateSnapshot(b, now) == nil
		}},
		"stored snapshot": {bare.snapshot.signed(), func(b []byte) bool {
			next := stamped
			return next.RecallSnapshot(b) == nil
		}},
		"announced targets": {bare.targets.signed(), func(b []byte) bool {
			next := listed
			return next.UpdateTargets(b, now) == nil
		}},
		"delegated role": {bare.roles["A"].signed(), func(b []byte) bool {
			s, err := delegating.Search("file")
			return err == nil && s.Update(b, now) == nil
		}},
		"targets": {w.targets.signed(), func(b []byte) bool {
			next := *start
			return next.RecallTargets(b) == nil
		}},
		"manifest": {sign(m.Value(), newKey("dir")), func(b []byte) bool {
			_, err := trust.VerifyManifest(b, director, who(), 4, now)
			return err == nil
		}},
		"director root": {directorBytes, func(b []byte) bool {
			_, err := trust.ParseDirectorRoot(b, trust.Ed25519())
			return err == nil
		}},
		"bundle": {bundle.Encode(), func(b []byte) bool {
			got, err := trust.ParseBundle(b, trust.Ed25519())
			return err == nil && got.Digest() == bundle.Digest()
		}},
		"sealed report": {sealed, func(b []byte) bool {
			_, err := trust.Open(b, publicOf("agent"))
			return err == nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !d.accept(d.b) {
				t.Fatal("the untouched document is refused")
			}
			want := signedPart(t, d.b)
			changed := bytes.Clone(d.b)
			step := 1
			if name == "bundle" {
				step = 7 // meets each of the eight positions in turn
			}
			for bit := 0; bit < 8*len(d.b); bit += step {
				changed[bit/8] ^= 1 << (bit % 8)
				if d.accept(changed) && !bytes.Equal(signedPart(t, changed), want) {
					t.Errorf("bit %d flipped: accepted with other content", bit)
				}
				changed[bit/8] = d.b[bit/8]
			}
			for n := range d.b {
				if d.accept(d.b[:n]) {
					t.Errorf("the first %d bytes are accepted", n)
				}
			}
			if d.accept(append(bytes.Clone(d.b), '{')) {
				t.Error("accepted with something behind it")
			}
		})
	}
}

// version announces a file by its version alone.
func version(n int64) cjson.Value { return cjson.Object(cjson.F("version", cjson.Int(n))) }

// signedPart returns what was signed: the signed member, or the whole document.
func signedPart(t testing.TB, b []byte) []byte {
	t.Helper()
	v, err := cjson.Parse(b)
	if err != nil {
		t.Fatalf("accepted but not JSON: %v", err)
	}
	if signed, ok := v.Get("signed"); ok {
		return signed.Canonical()
	}
	return v.Canonical()
}

func FuzzReaders(f *testing.F) {
	w := newWorld()
	w.link()
	m := manifest()
	root := w.roots[0].signed()
	for _, b := range [][]byte{root, w.timestamp.signed(), w.snapshot.signed(), w.targets.signed(), sign(m.Value(), newKey("dir"))} {
		f.Add(b)
	}
	director := directorRoot(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Nothing may panic; what is accepted unsigned would show here.
		start, err := trust.NewTrusted(root, trust.Ed25519())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.ParseEnvelope(b, trust.MaxTargets); err == nil {
			if e, _ := trust.ParseEnvelope(b, trust.MaxTargets); len(e.Signatures) == 0 {
				if start.UpdateRoot(b) == nil || start.RecallTargets(b) == nil || start.RecallTimestamp(b) == nil || start.RecallSnapshot(b) == nil {
					t.Fatal("accepted without signatures")
				}
				return
			}
		}
		for _, err := range []error{start.UpdateRoot(b), start.RecallTargets(b), start.RecallTimestamp(b), start.RecallSnapshot(b)} {
			if c := trust.Class(err); c == "other" {
				t.Fatalf("an undocumented error: %v", err)
			}
		}
		if _, err := trust.VerifyManifest(b, director, who(), 4, now); trust.Class(err) == "other" {
			t.Fatalf("an undocumented error: %v", err)
		}
		if _, err := trust.ParseBundle(b, trust.Ed25519()); trust.Class(err) == "other" {
			t.Fatalf("an undocumented error: %v", err)
		}
	})
}
