package main

import (
	"testing"
	"time"

	"livemend.dev/livemend/trust"
)

func TestTimestampContentWithoutNewVersion(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	u.must(u.refresh(r), 0)
	before := string(u.stored("timestamp.json"))
	r.announced["timestamp"]["snapshot.json"] = announcement{version: 100}
	r.put("timestamp")
	u.must(u.refresh(r), 0)
	if last := r.lastRequest(t); last != "timestamp.json" {
		t.Errorf("it went on to %s", last)
	}
	if string(u.stored("timestamp.json")) != before {
		t.Error("another timestamp of the same version is stored")
	}
}

func TestRollback(t *testing.T) {
	for _, hashed := range []bool{false, true} {
		t.Run("timestamp", func(t *testing.T) {
			r := newRepository(t)
			r.hashed = hashed
			u := started(t, r)
			r.publish("snapshot", "timestamp")
			u.must(u.refresh(r), 0)
			r.docs["timestamp"].version = 1
			r.put("timestamp")
			u.refused(u.refresh(r), trust.ErrRollback)
			if u.version("timestamp") != 2 || r.lastRequest(t) != "timestamp.json" {
				t.Error("it was not refused at once")
			}
		})
		t.Run("snapshot", func(t *testing.T) {
			r := newRepository(t)
			r.hashed = hashed
			u := started(t, r)
			r.publish("snapshot", "timestamp")
			u.must(u.refresh(r), 0)
			r.docs["snapshot"].version = 1
			r.put("snapshot")
			r.publish("timestamp")
			u.refused(u.refresh(r), trust.ErrRollback)
			u.wantTrusted("root 1", "timestamp 2", "snapshot 2", "targets 1")
			if r.lastRequest(t) != "timestamp.json" {
				t.Error("it was not refused at once")
			}
		})
		t.Run("targets", func(t *testing.T) {
			r := newRepository(t)
			r.hashed = hashed
			u := started(t, r)
			r.publish("targets", "targets", "snapshot", "timestamp")
			u.must(u.refresh(r), 0)
			r.docs["targets"].version = 2
			r.put("targets")
			r.publish("snapshot", "timestamp")
			u.refused(u.refresh(r), trust.ErrRollback)
			u.wantTrusted("root 1", "timestamp 3", "snapshot 2", "targets 3")
		})
		t.Run("delegated role", func(t *testing.T) {
			r := newRepository(t)
			r.hashed = hashed
			u := started(t, r)
			r.delegate("targets", delegation{name: "A"})
			r.add("A", "x", "first")
			r.publish("A", "A")
			r.publish("targets", "snapshot", "timestamp")
			u.must(u.download(r, "x"), 0)
			r.docs["A"].version = 1
			r.put("A")
			r.publish("snapshot", "timestamp")
			u.refused(u.download(r, "x"), trust.ErrRollback)
			if u.version("A") != 2 {
				t.Errorf("A %d is stored, want 2", u.version("A"))
			}
		})
	}
	t.Run("role that is not listed any more", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.delegate("targets", delegation{name: "A"})
		r.publish(r.all()...)
		u.must(u.refresh(r), 0)
		delete(r.announced["snapshot"], "A.json")
		r.publish("snapshot", "timestamp")
		u.refused(u.refresh(r), trust.ErrRollback)
	})
	t.Run("snapshot of the past, timestamp as it was", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.publish("snapshot", "timestamp")
		u.must(u.refresh(r), 0)
		r.published["snapshot"] = r.published["snapshot"][:1]
		u.must(u.refresh(r), 0)
		if u.version("snapshot") != 2 {
			t.Errorf("snapshot %d is stored, want 2", u.version("snapshot"))
		}
	})
}

func TestFastForwardRecovery(t *testing.T) {
	for _, tt := range []struct {
		role   string
		rotate []string
	}{
		{"timestamp", []string{"timestamp"}},
		{"snapshot", []string{"snapshot", "timestamp"}},
		{"targets", []string{"snapshot"}},
	} {
		t.Run(tt.role, func(t *testing.T) {
			r := newRepository(t)
			u := started(t, r)
			fresh := *r.docs[tt.role]
			for range 99 {
				r.publish(tt.role)
			}
			r.publish("snapshot", "timestamp")
			u.must(u.refresh(r), 0)
			if u.version(tt.role) < 100 {
				t.Fatalf("%s %d is stored, want at least 100", tt.role, u.version(tt.role))
			}
			fresh.signers = r.docs[tt.role].signers
			*r.docs[tt.role] = fresh
			// Without new keys nobody may go back.
			r.put(tt.role)
			for _, role := range []string{"snapshot", "timestamp"} {
				if role != tt.role && tt.role != "timestamp" {
					r.publish(role)
				}
			}
			u.refused(u.refresh(r), trust.ErrRollback)
			for _, role := range tt.rotate {
				r.rotate(role)
			}
			r.publish("root")
			if tt.role != "timestamp" {
				if tt.role == "targets" {
					r.publish("snapshot")
				} else {
					r.published["snapshot"] = nil // the server finds versions by their place
					r.put("snapshot")
				}
				r.publish("timestamp")
			} else {
				r.put("timestamp")
			}
			u.must(u.refresh(r), 0)
			if u.version(tt.role) != 1 {
				t.Errorf("%s %d is stored, want 1", tt.role, u.version(tt.role))
			}
		})
	}
}

// TestRotationLeavesTheFloor adds a key: what the old keys signed still counts,
// so it still is a floor, or anybody could serve it again.
func TestRotationLeavesTheFloor(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	r.publish("snapshot", "timestamp")
	u.must(u.refresh(r), 0)
	r.grants["timestamp"].keys = append(r.grants["timestamp"].keys, newKey(t))
	r.publish("root")
	r.published["timestamp"] = r.published["timestamp"][:1]
	u.refused(u.refresh(r), trust.ErrRollback)
}

func TestAnnouncementAndFileDiffer(t *testing.T) {
	t.Run("snapshot version", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.docs["snapshot"].version = 2
		r.published["snapshot"][0] = r.sign(r.docs["snapshot"])
		u.refused(u.refresh(r), trust.ErrVersion)
		u.wantTrusted("root 1", "timestamp 1")
		if last := r.lastRequest(t); last != "1.snapshot.json" {
			t.Errorf("it went on to %s", last)
		}
	})
	t.Run("targets version", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		r.docs["targets"].version = 2
		r.published["targets"][0] = r.sign(r.docs["targets"])
		u.refused(u.refresh(r), trust.ErrVersion)
		u.wantTrusted("root 1", "timestamp 1", "snapshot 1")
	})
	t.Run("targets that nobody announced", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		u.must(u.refresh(r), 0)
		r.publish("targets")
		u.must(u.refresh(r), 0)
		if u.version("targets") != 1 || r.lastRequest(t) != "timestamp.json" {
			t.Error("they were asked for")
		}
	})
	for _, role := range []string{"snapshot", "targets"} {
		t.Run(role+" hash", func(t *testing.T) {
			r := newRepository(t)
			r.hashed = true
			r.publish("targets", "snapshot", "timestamp")
			u := started(t, r)
			u.must(u.refresh(r), 0)
			r.publish("targets", "snapshot")
			by := map[string]string{"snapshot": "timestamp", "targets": "snapshot"}[role]
			a := r.announced[by][role+".json"]
			a.sha256 = sumOf("sha256", []byte("another file"))
			r.announced[by][role+".json"] = a
			if role == "targets" {
				r.put("snapshot")
				r.published["snapshot"] = append(r.published["snapshot"][:2], r.published["snapshot"][3])
			}
			r.publish("timestamp")
			u.refused(u.refresh(r), trust.ErrHash)
			if u.version(role) != 2 {
				t.Errorf("%s %d is stored, want 2", role, u.version(role))
			}
		})
	}
}

const day = 24 * time.Hour

func TestExpiry(t *testing.T) {
	for _, tt := range []struct {
		role    string
		trusted []string
	}{
		{"root", []string{"root 2", "timestamp 1", "snapshot 1", "targets 1"}},
		{"timestamp", []string{"root 1", "timestamp 1", "snapshot 1", "targets 1"}},
		{"snapshot", []string{"root 1", "timestamp 2", "snapshot 1", "targets 1"}},
		{"targets", []string{"root 1", "timestamp 2", "snapshot 2", "targets 1"}},
	} {
		t.Run(tt.role, func(t *testing.T) {
			r := newRepository(t)
			u := started(t, r)
			u.must(u.refresh(r), 0)
			r.docs[tt.role].expires = time.Now().Add(-5 * day)
			if tt.role == "root" {
				r.publish("root")
			} else {
				r.publish("targets", "snapshot", "timestamp")
			}
			u.refused(u.refresh(r), trust.ErrExpired)
			u.wantTrusted(tt.trusted...)
		})
	}
	t.Run("a root on the way to a good one", func(t *testing.T) {
		r := newRepository(t)
		u := started(t, r)
		good := r.docs["root"].expires
		r.docs["root"].expires = time.Now().Add(-day)
		r.publish("root")
		r.docs["root"].expires = good
		r.publish("root")
		u.must(u.refresh(r), 0)
		u.wantTrusted("root 3", "timestamp 1", "snapshot 1", "targets 1")
	})
	t.Run("a freeze is noticed when time passes", func(t *testing.T) {
		r := newRepository(t)
		r.docs["timestamp"].expires = time.Now().Add(7 * day)
		r.publish("timestamp")
		u := started(t, r)
		u.must(u.refresh(r), 0)
		u.later(6 * day)
		u.must(u.refresh(r), 0)
		u.later(8 * day)
		u.refused(u.refresh(r), trust.ErrExpired)
	})
	t.Run("expired stored metadata can be followed by new", func(t *testing.T) {
		r := newRepository(t)
		for _, role := range []string{"timestamp", "snapshot", "targets"} {
			r.docs[role].expires = time.Now().Add(7 * day)
		}
		r.publish("targets", "snapshot", "timestamp")
		u := started(t, r)
		u.must(u.refresh(r), 0)
		for _, role := range []string{"timestamp", "snapshot", "targets"} {
			r.docs[role].expires = time.Now().Add(21 * day)
		}
		r.publish("targets", "snapshot", "timestamp")
		u.later(18 * day)
		u.must(u.refresh(r), 0)
		u.wantTrusted("root 1", "timestamp 3", "snapshot 3", "targets 3")
	})
}
