package trust_test

import (
	"errors"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func TestRecoveryFromVersionsThatRanAhead(t *testing.T) {
	// A thief of the online keys signed the highest version. New keys in a new
	// root make the old floors void.
	w := newWorld()
	ahead := doc("timestamp", 1<<62, cjson.F("meta", cjson.Object(cjson.F("snapshot.json", meta(1<<62, nil)))))
	roles := portalRoles()
	roles["timestamp"] = roleKeys{keys("ts2"), 1}
	w.roots = append(w.roots, part{value: rootDoc(2, roles), signers: keys("r1", "r2")})
	w.timestamp.signers = keys("ts2")
	old, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	if err := old.UpdateRoot(w.roots[1].signed()); err != nil {
		t.Fatal(err)
	}
	if err := old.RecallTimestamp(sign(ahead, newKey("ts"))); !errors.Is(err, trust.ErrThreshold) {
		t.Fatalf("a timestamp by a replaced key is recalled: %v", err)
	}
	mustTrust(t, w)
}

func TestPluggedScheme(t *testing.T) {
	// A scheme whose keys may be written with white space, as PEM may.
	spaced := func(public string, message, sig []byte) bool {
		return trust.Ed25519()["ed25519"](strings.Join(strings.Fields(public), ""), message, sig)
	}
	schemes := trust.Schemes{"ed25519": trust.Ed25519()["ed25519"], "spaced": spaced}
	w := newWorld()
	for i, id := range []string{"id-of-t1", "id-of-t2"} {
		w.roots[0].value = set(w.roots[0].value, cjson.String("spaced"), "keys", id, "scheme")
		public := newKey("t1").public().Public
		w.roots[0].value = set(w.roots[0].value, cjson.String(public[:8+i]+"\n"+public[8+i:]), "keys", id, "keyval", "public")
	}
	same := newKey("t1")
	same.id = "id-of-t2"
	w.targets.signers = []key{newKey("t1"), same}
	if _, err := w.run(schemes); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("one key in two spellings: %v, want ErrThreshold", err)
	}
	w.roots[0].value = set(w.roots[0].value, cjson.String(newKey("t2").public().Public), "keys", "id-of-t2", "keyval", "public")
	w.targets.signers = keys("t1", "t2")
	if _, err := w.run(schemes); err != nil {
		t.Errorf("two keys of a plugged scheme: %v", err)
	}
	if _, err := w.run(trust.Ed25519()); !errors.Is(err, trust.ErrScheme) {
		t.Errorf("the same where the scheme is not allowed: %v, want ErrScheme", err)
	}
}

func TestSameTimestampVersionWithOtherContent(t *testing.T) {
	w := newWorld()
	w.link()
	announcing := func(snapshot int64) []byte {
		return sign(set(w.timestamp.value, meta(snapshot, nil), "meta", "snapshot.json"), newKey("ts"))
	}
	trusted, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	if err := trusted.RecallTimestamp(announcing(5)); err != nil {
		t.Fatal(err)
	}
	changed, err := trusted.UpdateTimestamp(announcing(9), now)
	if err != nil || changed || trusted.SnapshotName() != "5.snapshot.json" {
		t.Errorf("changed %v, announced %s, %v: what was accepted first must stay", changed, trusted.SnapshotName(), err)
	}
}

func TestOrder(t *testing.T) {
	w := newWorld()
	w.link()
	stamp, snap, targets := w.timestamp.signed(), w.snapshot.signed(), w.targets.signed()
	start := func() *trust.Trusted {
		trusted, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
		if err != nil {
			t.Fatal(err)
		}
		return trusted
	}
	wantOrder := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, trust.ErrOrder) {
			t.Errorf("%s: %v, want ErrOrder", what, err)
		}
	}
	a := start()
	wantOrder("snapshot before timestamp", a.UpdateSnapshot(snap, now))
	wantOrder("targets before snapshot", a.UpdateTargets(targets, now))
	if _, err := a.UpdateTimestamp(stamp, now); err != nil {
		t.Fatal(err)
	}
	wantOrder("root after timestamp", a.UpdateRoot(w.roots[0].signed()))
	wantOrder("recalling a timestamp too late", a.RecallTimestamp(stamp))
	wantOrder("recalling targets in a refresh", a.RecallTargets(targets))
	_, err := a.UpdateTimestamp(stamp, now)
	wantOrder("second timestamp", err)
	wantOrder("targets before snapshot", a.UpdateTargets(targets, now))
	if a.SnapshotName() != "5.snapshot.json" || a.TargetsName() != "" {
		t.Errorf("names %q, %q", a.SnapshotName(), a.TargetsName())
	}
}

func TestRecallTargets(t *testing.T) {
	w := newWorld()
	w.targets.value = set(w.targets.value, cjson.String("2020-01-01T00:00:00Z"), "expires")
	w.roots[0].value = set(w.roots[0].value, cjson.String("2020-01-01T00:00:00Z"), "expires")
	fresh := func() *trust.Trusted {
		trusted, err := trust.NewTrusted(w.roots[0].signed(), trust.Ed25519())
		if err != nil {
			t.Fatal(err)
		}
		return trusted
	}
	a := fresh()
	if err := a.RecallTargets(w.targets.signed()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Target("user/a.lmp"); err != nil {
		t.Error(err)
	}
	w.targets.signers = keys("t1")
	if err := fresh().RecallTargets(w.targets.signed()); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("too few signatures: %v", err)
	}
}

func TestTargetsInOrder(t *testing.T) {
	w := newWorld()
	paths := []string{"a", "user/a.lmp", "user/b.lmp", "z/z/z"}
	for _, p := range paths {
		w.targets.value = set(w.targets.value, targetFor(p, content).Value(), "targets", p)
	}
	trusted := mustTrust(t, w)
	i := 0
	for target := range trusted.Targets() {
		if target.Path != paths[i] {
			t.Errorf("target %d is %s, want %s", i, target.Path, paths[i])
		}
		if got, err := trusted.Target(target.Path); err != nil || got.SHA256 != target.SHA256 {
			t.Errorf("Target(%s): %v", target.Path, err)
		}
		i++
	}
	if i != len(paths) {
		t.Errorf("%d targets, want %d", i, len(paths))
	}
	for _, p := range []string{"", "user", "user/a.lm", "user/a.lmpx", "zz"} {
		if _, err := trusted.Target(p); !errors.Is(err, trust.ErrNoTarget) {
			t.Errorf("Target(%q): %v, want ErrNoTarget", p, err)
		}
	}
	if trusted.TargetsVersion() != 3 || trusted.SnapshotVersion() != 5 || trusted.TimestampVersion() != 7 || !trusted.Expires().Equal(later) {
		t.Error("wrong versions or expiry")
	}
}
