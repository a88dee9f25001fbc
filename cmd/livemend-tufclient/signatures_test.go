package main

import (
	"bytes"
	"fmt"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// badSignature has the form that signatures of a scheme have.
func badSignature(t *testing.T, scheme string) []byte {
	t.Helper()
	return newSigner(t, scheme).sign([]byte("something else"))
}

func TestKeyTypes(t *testing.T) {
	for _, scheme := range []string{"rsassa-pss-sha256", "ecdsa-sha2-nistp256", "ed25519"} {
		t.Run(scheme, func(t *testing.T) {
			r := newRepository(t)
			u := started(t, r)
			k := newSigner(t, scheme)
			r.grants["root"].keys = append(r.grants["root"].keys, k)
			r.grants["root"].threshold = 2
			r.docs["root"].signers = append(r.docs["root"].signers, k)
			r.publish("root")
			u.must(u.refresh(r), 0)
			if u.version("root") != 2 {
				t.Fatalf("root %d is stored, want 2", u.version("root"))
			}
			bad := k
			bad.sign = func([]byte) []byte { return badSignature(t, scheme) }
			r.docs["root"].signers[1] = bad
			r.publish("root")
			u.refused(u.refresh(r), trust.ErrThreshold)
			if u.version("root") != 2 {
				t.Errorf("root %d is stored, want 2", u.version("root"))
			}
		})
	}
}

func TestThresholds(t *testing.T) {
	t.Run("not met", func(t *testing.T) {
		r := newRepository(t)
		for range 2 {
			k := newKey(t)
			r.grants["snapshot"].keys = append(r.grants["snapshot"].keys, k)
			r.docs["snapshot"].signers = append(r.docs["snapshot"].signers, k)
		}
		r.grants["snapshot"].threshold = 3
		r.publish("root", "targets", "snapshot", "timestamp")
		u := started(t, r)
		u.must(u.refresh(r), 0)
		r.docs["snapshot"].signers = r.docs["snapshot"].signers[:2]
		r.publish("targets", "snapshot", "timestamp")
		u.refused(u.refresh(r), trust.ErrThreshold)
		u.wantTrusted("root 2", "timestamp 3", "snapshot 2", "targets 2")
	})
	t.Run("more than there are keys", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.grants["snapshot"].threshold = 2
		r.publish("root", "snapshot", "timestamp")
		u.refused(u.refresh(r), trust.ErrThreshold)
		u.wantTrusted("root 2", "timestamp 2")
	})
	t.Run("the same keyid many times", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		k := newKey(t)
		for range 9 {
			r.grants["snapshot"].keys = append(r.grants["snapshot"].keys, k)
		}
		r.grants["snapshot"].threshold = 6
		r.docs["snapshot"].signers = append(r.docs["snapshot"].signers, k)
		r.publish("root", "snapshot", "timestamp")
		u.must(u.refresh(r), 1)
		if u.version("snapshot") != 0 {
			t.Error("the snapshot is stored")
		}
	})
	t.Run("one key under many keyids", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		k := newKey(t)
		for i := range 6 {
			k.id = fmt.Sprintf("name-%d", i)
			r.grants["snapshot"].keys = append(r.grants["snapshot"].keys, k)
			r.docs["snapshot"].signers = append(r.docs["snapshot"].signers, k)
		}
		r.grants["snapshot"].threshold = 3
		r.publish("root", "snapshot", "timestamp")
		u.refused(u.refresh(r), trust.ErrThreshold)
		if u.version("snapshot") != 0 {
			t.Error("the snapshot is stored")
		}
	})
	t.Run("the same signature many times", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		k := r.docs["timestamp"].signers[0]
		r.grants["timestamp"] = &grant{[]signer{k, newKey(t)}, 2}
		r.docs["timestamp"].signers = []signer{k, k}
		r.publish("root", "timestamp")
		u.must(u.refresh(r), 1)
		u.wantTrusted("root 2")
	})
	t.Run("threshold 0", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.grants["timestamp"].threshold = 0
		r.docs["timestamp"].signers = nil
		r.publish("root", "timestamp")
		u.refused(u.refresh(r), trust.ErrMalformed)
		u.wantTrusted("root 1")
	})
}

func TestKeysOfUnknownSchemes(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	strange := signer{id: "somebody", public: trust.PublicKey{Type: "oidc", Scheme: "fulcio", Public: "somebody"},
		sign: func([]byte) []byte { return []byte("I am somebody") }}
	r.grants["targets"].keys = append(r.grants["targets"].keys, strange)
	r.docs["targets"].signers = append(r.docs["targets"].signers, strange)
	r.edit = func(role string, v cjson.Value) cjson.Value {
		if role == "root" {
			v = set(v, "keys.somebody.keyval", cjson.Object(cjson.F("identity", cjson.String("x")), cjson.F("issuer", cjson.String("y"))))
		}
		return v
	}
	r.publish("root", "targets", "snapshot", "timestamp")
	u.must(u.refresh(r), 0)
	r.grants["targets"].threshold = 2
	r.publish("root", "targets", "snapshot", "timestamp")
	u.refused(u.refresh(r), trust.ErrScheme)
	if u.version("targets") != 2 {
		t.Errorf("targets %d is stored, want 2", u.version("targets"))
	}
}

// TestEmptySignatures: some tools list those who have yet to sign.
func TestEmptySignatures(t *testing.T) {
	r := newRepository(t)
	absent := newKey(t)
	absent.sign = func([]byte) []byte { return nil }
	r.grants["targets"].keys = append(r.grants["targets"].keys, absent)
	r.docs["targets"].signers = append(r.docs["targets"].signers, absent)
	r.publish("root", "targets", "snapshot", "timestamp")
	if !bytes.Contains(r.published["targets"][1], []byte(`"sig":""`)) {
		t.Fatal("no signature is empty")
	}
	u := started(t, r)
	u.must(u.refresh(r), 0)
	r.grants["targets"].threshold = 2
	r.publish("root", "targets", "snapshot", "timestamp")
	u.refused(u.refresh(r), trust.ErrThreshold)
}
