package trust_test

import (
	"bytes"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// TestEveryFlippedBitAndEveryCut changes each bit of each signed document (of
// those over 1200 bytes, which hold many equal keys, every seventh) and cuts each at every length. The reader must refuse, or read the very content
// that was signed (a change of a signature beyond the threshold, for example).
func TestEveryFlippedBitAndEveryCut(t *testing.T) {
	w := newWorld()
	w.roots[0].signers = keys("r1", "r2") // exactly the threshold
	w.link()
	start, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
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
			if len(d.b) > 1200 {
				step = 7 // meets each of the eight positions in turn
			}
			for bit := 0; bit < 8*len(d.b); bit += step {
				changed[bit/8] ^= 1 << (bit % 8)
				if d.accept(changed) && !bytes.Equal(signedPart(t, changed), want) {
					t.Errorf("bit %d flipped: accepted with other content", bit)
				}
				changed[bit/8] = d.b[bit/8]
			}
			for n := 0; n < len(d.b); n += step {
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

// signedPart returns what was signed: the signed member, or the whole document.
func signedPart(t *testing.T, b []byte) []byte {
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
