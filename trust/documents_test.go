package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func publicOf(name string) ed25519.PublicKey {
	return newKey(name).private.Public().(ed25519.PublicKey)
}

func TestBundle(t *testing.T) {
	portal := sign(rootDoc(1, portalRoles()), keys("r1", "r2")...)
	director := sign(directorDoc(1, roleKeys{keys("d1", "d2", "d3"), 2}, roleKeys{keys("dir"), 1}), keys("d1", "d3")...)
	b, err := trust.NewBundle(director, portal, []string{channel}, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	again, err := trust.ParseBundle(b.Encode(), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != b.Digest() || !strings.HasPrefix(b.Digest(), "lmd1-") || len(b.Digest()) != 5+64 {
		t.Errorf("digests %s and %s", b.Digest(), again.Digest())
	}
	if _, err := trust.NewTrusted(again.PortalBytes, trust.Ed25519()); err != nil {
		t.Errorf("the portal's root does not come out whole: %v", err)
	}
	if _, err := trust.ParseDirectorRoot(again.DirectorBytes, trust.Ed25519()); err != nil {
		t.Errorf("the director's root does not come out whole: %v", err)
	}
	for name, tt := range map[string]struct {
		director, portal []byte
		servers          []string
		want             error
	}{
		"server key of somebody else": {director, portal, []string{strings.Repeat("0", 64)}, trust.ErrDisagree},
		"one good and one bad server": {director, portal, []string{channel, strings.Repeat("0", 64)}, trust.ErrDisagree},
		"no server":                   {director, portal, nil, trust.ErrMalformed},
		"roots swapped":               {portal, director, []string{channel}, trust.ErrMalformed},
		"portal root unsigned":        {director, sign(rootDoc(1, portalRoles())), []string{channel}, trust.ErrThreshold},
	} {
		if _, err := trust.NewBundle(tt.director, tt.portal, tt.servers, trust.Ed25519()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	other, err := trust.NewBundle(director, sign(rootDoc(1, portalRoles()), keys("r1", "r3")...), []string{channel}, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest() == b.Digest() {
		t.Error("two bundles have one digest")
	}
}

func TestSeal(t *testing.T) {
	k := newKey("agent")
	signWith := func(message []byte) []byte { return ed25519.Sign(k.private, message) }
	rapid.Check(t, func(t *rapid.T) {
		v := cjson.Object(
			cjson.F("text", cjson.String(rapid.String().Draw(t, "text"))),
			cjson.F("n", cjson.Int(rapid.Int64().Draw(t, "n"))))
		got, err := trust.Open(trust.Seal(v, "sys-1", signWith), publicOf("agent"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Canonical(), v.Canonical()) {
			t.Fatalf("opened %s, sealed %s", got.Canonical(), v.Canonical())
		}
	})
	v := cjson.Object(cjson.F("outcome", cjson.String("done\nwith a new line")))
	sealed := trust.Seal(v, "sys-1", signWith)
	if _, err := trust.Open(sealed, publicOf("another agent")); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("another system's key: %v", err)
	}
	if _, err := trust.Open(sealed, nil); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("no key: %v", err)
	}
	if _, err := trust.Open(sign(v, k, newKey("other")), publicOf("agent")); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("two signatures: %v", err)
	}
	if _, err := trust.Open(sign(v), publicOf("agent")); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("no signature: %v", err)
	}
}

func TestContent(t *testing.T) {
	f := targetFor("user/a.lmp", content)
	both := f
	both.SHA512 = strings.Repeat("0", 128)
	only512 := f
	only512.SHA256, only512.SHA512 = "", "00"
	for _, tt := range []struct {
		name   string
		target trust.Target
		r      io.Reader
		want   error
	}{
		{"whole", f, strings.NewReader(content), nil},
		{"byte by byte", f, iotest.OneByteReader(strings.NewReader(content)), nil},
		{"cut", f, strings.NewReader(content[:len(content)-1]), trust.ErrLength},
		{"empty", f, strings.NewReader(""), trust.ErrLength},
		{"longer", f, strings.NewReader(content + "x"), trust.ErrLength},
		{"endless", f, endless{}, trust.ErrLength},
		{"same length, other bytes", f, strings.NewReader(strings.ToUpper(content)), trust.ErrHash},
		{"second hash wrong", both, strings.NewReader(content), trust.ErrHash},
		{"only hash wrong", only512, strings.NewReader(content), trust.ErrHash},
		{"empty target", targetFor("e", ""), strings.NewReader(""), nil},
		{"empty target with content", targetFor("e", ""), strings.NewReader("x"), trust.ErrLength},
	} {
		if err := trust.CheckContent(tt.target, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	c := trust.NewContent(f)
	if n, err := c.Write(make([]byte, f.Length+1)); n != 0 || !errors.Is(err, trust.ErrLength) {
		t.Errorf("one byte too many: %d, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestEveryFlippedBitOfContent(t *testing.T) {
	f := targetFor("user/a.lmp", content)
	for bit := range 8 * len(content) {
		b := []byte(content)
		b[bit/8] ^= 1 << (bit % 8)
		if err := trust.CheckContent(f, bytes.NewReader(b)); !errors.Is(err, trust.ErrHash) {
			t.Errorf("bit %d flipped: %v", bit, err)
		}
	}
}

func TestStorageName(t *testing.T) {
	for path, want := range map[string]string{"user/x/level-1.lmp": "user/x/HASH.level-1.lmp", "a": "HASH.a"} {
		if got := (trust.Target{Path: path, SHA256: "HASH"}).StorageName(); got != want {
			t.Errorf("%s is stored as %s, want %s", path, got, want)
		}
	}
}

func TestFormatTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 250_000_000_000).Draw(t, "seconds"), 0)
		if got, want := trust.FormatTime(at), at.UTC().Format("2006-01-02T15:04:05Z"); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func TestTimesInMetadata(t *testing.T) {
	for text, ok := range map[string]bool{
		"2027-01-31T23:59:59Z": true, "2028-02-29T00:00:00Z": true, "9999-12-31T00:00:00Z": true,
		"2027-02-29T00:00:00Z": false, "2027-13-01T00:00:00Z": false, "2027-00-01T00:00:00Z": false,
		"2027-01-01T24:00:00Z": false, "2027-01-01T00:60:00Z": false, "2027-01-01t00:00:00Z": false,
		"2027-01-01T00:00:00+00:00": false, "2027-01-01T00:00:00.5Z": false, "": false, "2027-1-1T00:00:00Z": false,
	} {
		w := newWorld()
		w.targets.value = set(w.targets.value, cjson.String(text), "expires")
		if _, err := w.run(trust.Ed25519()); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestValidPath(t *testing.T) {
	for path, ok := range map[string]bool{
		"a": true, "user/0a/level-1.lmp": true, "a..b/.c": true, "é": true,
		"": false, "/a": false, "a/": false, "a//b": false, "a/./b": false, "..": false, "a/../b": false,
		"a\\b": false, "a\x00b": false, "a\nb": false, strings.Repeat("a", trust.MaxPath+1): false,
	} {
		if trust.ValidPath(path) != ok {
			t.Errorf("ValidPath(%q) = %v", path, !ok)
		}
	}
}

func TestClassNamesEveryError(t *testing.T) {
	seen := make(map[string]bool)
	for _, err := range []error{trust.ErrMalformed, trust.ErrThreshold, trust.ErrExpired, trust.ErrRollback, trust.ErrVersion,
		trust.ErrHash, trust.ErrLength, trust.ErrNoTarget, trust.ErrWrongSystem, trust.ErrReplay, trust.ErrDisagree,
		trust.ErrNotFresh, trust.ErrScheme, trust.ErrOrder} {
		c := trust.Class(&trust.Refusal{What: "x", Err: err})
		if c == "" || c == "other" || seen[c] {
			t.Errorf("Class(%v) = %q", err, c)
		}
		seen[c] = true
	}
	if trust.Class(nil) != "" || trust.Class(io.EOF) != "other" {
		t.Error("nil and foreign errors have wrong classes")
	}
}
