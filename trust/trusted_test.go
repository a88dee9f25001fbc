package trust_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func TestAccepted(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*world)
	}{
		{"as it is", func(*world) {}},
		{"more signatures than needed", func(w *world) { w.roots[0].signers = keys("r1", "r2", "r3") }},
		{"a signature by a stranger beside enough", func(w *world) { w.targets.signers = keys("t1", "stranger", "t2") }},
		{"announcement without length and hashes", func(w *world) {
			w.link()
			w.unlinked = true
			w.snapshot.value = drop(drop(w.snapshot.value, "meta", "targets.json", "length"), "meta", "targets.json", "hashes")
			w.timestamp.value = drop(set(w.timestamp.value, meta(5, w.snapshot.signed()), "meta", "snapshot.json"), "meta", "snapshot.json", "hashes")
		}},
		{"fields that this version does not know", func(w *world) {
			w.targets.value = set(w.targets.value, cjson.Object(cjson.F("keys", cjson.Object()), cjson.F("roles", cjson.Array())), "delegations")
			w.roots[0].value = set(w.roots[0].value, cjson.Int(1), "x-new")
		}},
		{"same timestamp again", func(w *world) { w.link(); old := w.timestamp; w.oldStamp = &old }},
		{"older timestamp and snapshot known", func(w *world) {
			w.oldSnap = &part{value: doc("snapshot", 4, cjson.F("meta", cjson.Object(cjson.F("targets.json", meta(2, nil))))), signers: keys("s")}
			w.oldStamp = &part{value: doc("timestamp", 6, cjson.F("meta", cjson.Object(cjson.F("snapshot.json", meta(4, nil))))), signers: keys("ts")}
		}},
		{"expired old files as floors", func(w *world) {
			old := doc("timestamp", 6, cjson.F("meta", cjson.Object(cjson.F("snapshot.json", meta(4, nil)))))
			w.oldStamp = &part{value: set(old, cjson.String("2020-01-01T00:00:00Z"), "expires"), signers: keys("ts")}
		}},
		{"root rotated twice, all keys of it replaced", func(w *world) {
			second := portalRoles()
			second["root"] = roleKeys{keys("r4", "r5"), 2}
			w.roots = append(w.roots,
				part{value: rootDoc(2, second), signers: keys("r1", "r2", "r4", "r5")},
				part{value: rootDoc(3, second), signers: keys("r4", "r5")})
		}},
		{"expired root that is followed by a fresh one", func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.String("2020-01-01T00:00:00Z"), "expires")
			w.roots = append(w.roots, part{value: rootDoc(2, portalRoles()), signers: keys("r1", "r3")})
		}},
		{"one second before the end", func(w *world) { w.at = later.Add(-time.Second) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			tt.edit(w)
			trusted := mustTrust(t, w)
			got, err := trusted.Target("user/a.lmp")
			if err != nil {
				t.Fatal(err)
			}
			if err := trust.CheckContent(got, strings.NewReader(content)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		want error
		edit func(*world)
	}{
		// Threshold.
		{"root signed by too few", trust.ErrThreshold, func(w *world) { w.roots[0].signers = keys("r1") }},
		{"root signed by another role's keys", trust.ErrThreshold, func(w *world) { w.roots[0].signers = keys("t1", "t2") }},
		{"timestamp unsigned", trust.ErrThreshold, func(w *world) { w.timestamp.signers = nil }},
		{"timestamp signed by the snapshot key", trust.ErrThreshold, func(w *world) { w.timestamp.signers = keys("s") }},
		{"snapshot signed by a stranger", trust.ErrThreshold, func(w *world) { w.snapshot.signers = keys("stranger") }},
		{"targets signed by one of two", trust.ErrThreshold, func(w *world) { w.targets.signers = keys("t2") }},
		{"stranger under the id of a known key", trust.ErrThreshold, func(w *world) {
			k := newKey("stranger")
			k.id = "id-of-ts"
			w.timestamp.signers = []key{k}
		}},
		{"one key under two ids", trust.ErrThreshold, func(w *world) {
			k := newKey("t1")
			k.id = "another name"
			roles := portalRoles()
			roles["targets"] = roleKeys{[]key{newKey("t1"), k}, 2}
			w.roots[0].value = rootDoc(1, roles)
			w.targets.signers = roles["targets"].keys
		}},
		{"one key with white space around it", trust.ErrThreshold, func(w *world) {
			root := w.roots[0].value
			root = set(root, cjson.String(newKey("t1").public().Public+" "), "keys", "id-of-t2", "keyval", "public")
			w.roots[0].value = root
			k := newKey("t1")
			k.id = "id-of-t2"
			w.targets.signers = []key{newKey("t1"), k}
		}},
		{"one key in upper case", trust.ErrThreshold, func(w *world) {
			upper := strings.ToUpper(newKey("t1").public().Public)
			w.roots[0].value = set(w.roots[0].value, cjson.String(upper), "keys", "id-of-t2", "keyval", "public")
			k := newKey("t1")
			k.id = "id-of-t2"
			w.targets.signers = []key{newKey("t1"), k}
		}},
		{"the same signature twice", trust.ErrMalformed, func(w *world) { w.targets.signers = keys("t1", "t1") }},
		{"threshold 0", trust.ErrMalformed, func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.Int(0), "roles", "timestamp", "threshold")
		}},
		{"threshold below 0", trust.ErrMalformed, func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.Int(-1), "roles", "targets", "threshold")
		}},
		{"threshold that no keys reach", trust.ErrThreshold, func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.Int(3), "roles", "targets", "threshold")
		}},
		{"scheme that is not allowed", trust.ErrScheme, func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.String("rsassa-pss-sha256"), "keys", "id-of-ts", "scheme")
		}},
		{"role without keys", trust.ErrThreshold, func(w *world) {
			w.roots[0].value = set(w.roots[0].value, cjson.Array(), "roles", "timestamp", "keyids")
		}},
		{"role missing", trust.ErrMalformed, func(w *world) { w.roots[0].value = drop(w.roots[0].value, "roles", "snapshot") }},

		// Root rotation.
		{"next root not signed by old keys", trust.ErrThreshold, func(w *world) {
			second := portalRoles()
			second["root"] = roleKeys{keys("r4", "r5"), 2}
			w.roots = append(w.roots, part{value: rootDoc(2, second), signers: keys("r1", "r4", "r5")})
		}},
		{"next root not signed by new keys", trust.ErrThreshold, func(w *world) {
			second := portalRoles()
			second["root"] = roleKeys{keys("r4", "r5"), 2}
			w.roots = append(w.roots, part{value: rootDoc(2, second), signers: keys("r1", "r2", "r4")})
		}},
		{"root version skipped", trust.ErrVersion, func(w *world) {
			w.roots = append(w.roots, part{value: rootDoc(3, portalRoles()), signers: keys("r1", "r2")})
		}},
		{"root version repeated", trust.ErrVersion, func(w *world) { w.roots = append(w.roots, w.roots[0]) }},
		{"root version went back", trust.ErrRollback, func(w *world) {
			w.roots[0].value = rootDoc(5, portalRoles())
			w.roots = append(w.roots, part{value: rootDoc(4, portalRoles()), signers: keys("r1", "r2")})
		}},
		{"timestamp by a key that the new root dropped", trust.ErrThreshold, func(w *world) {
			second := portalRoles()
			second["timestamp"] = roleKeys{keys("ts2"), 1}
			w.roots = append(w.roots, part{value: rootDoc(2, second), signers: keys("r1", "r2")})
		}},

		// Expiry.
		{"root expired", trust.ErrExpired, func(w *world) { w.roots[0].value = set(w.roots[0].value, expired, "expires") }},
		{"timestamp expired", trust.ErrExpired, func(w *world) { w.timestamp.value = set(w.timestamp.value, expired, "expires") }},
		{"snapshot expired", trust.ErrExpired, func(w *world) { w.snapshot.value = set(w.snapshot.value, expired, "expires") }},
		{"targets expired", trust.ErrExpired, func(w *world) { w.targets.value = set(w.targets.value, expired, "expires") }},
		{"same timestamp again, expired", trust.ErrExpired, func(w *world) {
			w.timestamp.value = set(w.timestamp.value, expired, "expires")
			w.link()
			old := w.timestamp
			w.oldStamp = &old
		}},

		// Rollback.
		{"timestamp older than known", trust.ErrRollback, func(w *world) {
			w.oldStamp = &part{value: doc("timestamp", 8, cjson.F("meta", cjson.Object(cjson.F("snapshot.json", meta(5, nil))))), signers: keys("ts")}
		}},
		{"timestamp newer, its snapshot older", trust.ErrRollback, func(w *world) {
			w.oldStamp = &part{value: doc("timestamp", 6, cjson.F("meta", cjson.Object(cjson.F("snapshot.json", meta(6, nil))))), signers: keys("ts")}
		}},
		{"snapshot lists older targets", trust.ErrRollback, func(w *world) {
			w.oldSnap = &part{value: doc("snapshot", 4, cjson.F("meta", cjson.Object(cjson.F("targets.json", meta(4, nil))))), signers: keys("s")}
		}},
		{"snapshot lost a file", trust.ErrRollback, func(w *world) {
			w.oldSnap = &part{value: doc("snapshot", 4, cjson.F("meta", cjson.Object(
				cjson.F("targets.json", meta(3, nil)), cjson.F("role1.json", meta(1, nil))))), signers: keys("s")}
		}},

		// Announcement and delivery differ.
		{"snapshot of another version than announced", trust.ErrVersion, func(w *world) {
			w.link()
			w.unlinked = true
			w.timestamp.value = set(w.timestamp.value, cjson.Int(6), "meta", "snapshot.json", "version")
		}},
		{"targets of another version than announced", trust.ErrVersion, func(w *world) {
			w.link()
			w.unlinked = true
			w.snapshot.value = set(w.snapshot.value, cjson.Int(9), "meta", "targets.json", "version")
			w.timestamp.value = set(w.timestamp.value, meta(5, w.snapshot.signed()), "meta", "snapshot.json")
		}},
		{"snapshot changed, same length", trust.ErrHash, func(w *world) { w.snapshot.tamper = changeByte(`"version":5`, `"version":6`) }},
		{"snapshot longer", trust.ErrLength, func(w *world) { w.snapshot.tamper = func(b []byte) []byte { return append(b, ' ') } }},
		{"targets changed, same length", trust.ErrHash, func(w *world) { w.targets.tamper = changeByte("user/a.lmp", "user/b.lmp") }},
		{"targets cut", trust.ErrLength, func(w *world) { w.targets.tamper = func(b []byte) []byte { return b[:len(b)-1] } }},
		{"timestamp changed after signing", trust.ErrThreshold, func(w *world) { w.timestamp.tamper = changeByte(`"version":7`, `"version":8`) }},

		// Form.
		{"one role's file in another's place", trust.ErrMalformed, func(w *world) {
			w.timestamp = part{value: doc("snapshot", 5, cjson.F("meta", cjson.Object())), signers: keys("ts")}
			w.unlinked = true
		}},
		{"version 0", trust.ErrMalformed, func(w *world) { w.timestamp.value = set(w.timestamp.value, cjson.Int(0), "version") }},
		{"another major specification", trust.ErrMalformed, func(w *world) { w.timestamp.value = set(w.timestamp.value, cjson.String("2.0.0"), "spec_version") }},
		{"impossible date", trust.ErrMalformed, func(w *world) {
			w.timestamp.value = set(w.timestamp.value, cjson.String("2027-02-30T00:00:00Z"), "expires")
		}},
		{"hashes of unknown kinds only", trust.ErrMalformed, func(w *world) {
			w.targets.value = set(w.targets.value, cjson.Object(cjson.F("md5", cjson.String("00"))), "targets", "user/a.lmp", "hashes")
		}},
		{"target without hashes", trust.ErrMalformed, func(w *world) { w.targets.value = drop(w.targets.value, "targets", "user/a.lmp", "hashes") }},
		{"target of negative length", trust.ErrMalformed, func(w *world) {
			w.targets.value = set(w.targets.value, cjson.Int(-1), "targets", "user/a.lmp", "length")
		}},
		{"target outside the folder", trust.ErrMalformed, func(w *world) {
			w.targets.value = set(w.targets.value, targetFor("x", content).Value(), "targets", "../../etc/passwd")
		}},
		{"timestamp too long", trust.ErrMalformed, func(w *world) {
			w.timestamp.tamper = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), trust.MaxTimestamp)...) }
		}},
		{"not JSON", trust.ErrMalformed, func(w *world) { w.timestamp.tamper = func([]byte) []byte { return []byte("<html>") } }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			tt.edit(w)
			trusted, err := w.run(trust.Ed25519())
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if trust.Class(err) == "" || trust.Class(err) == "other" {
				t.Errorf("Class(%v) = %q", err, trust.Class(err))
			}
			if trusted == nil {
				return
			}
			if _, err := trusted.Target("user/a.lmp"); !errors.Is(err, trust.ErrNoTarget) {
				t.Errorf("after the refusal the target is trusted all the same: %v", err)
			}
		})
	}
}
