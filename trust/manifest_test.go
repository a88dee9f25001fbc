package trust_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
)

const (
	buildID = "0123456789abcdef0123456789abcdef01234567"
	channel = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

func directorDoc(version int64, root, director roleKeys) cjson.Value {
	v := rootDoc(version, map[string]roleKeys{"root": root, "director": director})
	v = set(drop(v, "consistent_snapshot"), cjson.String("director-root"), "_type")
	return set(v, cjson.Strings([]string{channel}), "channel_keys")
}

func directorRoles() (root, director roleKeys) {
	return roleKeys{keys("d1", "d2", "d3"), 2}, roleKeys{keys("dir"), 1}
}

func directorRoot(t testing.TB) *trust.DirectorRoot {
	t.Helper()
	r, err := trust.ParseDirectorRoot(sign(directorDoc(1, roleKeys{keys("d1", "d2", "d3"), 2}, roleKeys{keys("dir"), 1}), keys("d1", "d3")...), trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func who() trust.Identity {
	return trust.Identity{SystemID: "sys-1", KeyHash: trust.HashKey(newKey("agent").private.Public().(ed25519.PublicKey))}
}

func manifest() trust.Manifest {
	f := targetFor("user/a.lmp", content)
	return trust.Manifest{
		SystemID: who().SystemID, KeyHash: who().KeyHash, Counter: 5, Job: "job", Task: "task",
		Action: trust.Apply, Path: f.Path, Length: f.Length, SHA256: f.SHA256, Level: 2, BuildID: buildID,
		Issued: now.Unix(), NotAfter: now.Add(time.Hour).Unix(),
	}
}

func TestManifestAccepted(t *testing.T) {
	root := directorRoot(t)
	for name, edit := range map[string]func(*trust.Manifest){
		"apply":                func(*trust.Manifest) {},
		"revert":               func(m *trust.Manifest) { m.Action = trust.Revert },
		"scan with content":    func(m *trust.Manifest) { m.Action, m.Scanner, m.Level, m.BuildID = trust.Scan, "openscap", 0, "" },
		"scan without content": func(m *trust.Manifest) { *m = scanWithoutContent(*m) },
		"clock a little behind": func(m *trust.Manifest) {
			m.Issued, m.NotAfter = now.Add(4*time.Minute).Unix(), now.Add(time.Hour).Unix()
		},
		"in its last second":     func(m *trust.Manifest) { m.Issued, m.NotAfter = now.Add(-time.Hour).Unix(), now.Unix() },
		"next counter":           func(m *trust.Manifest) { m.Counter = 5 },
		"counter that jumps far": func(m *trust.Manifest) { m.Counter = 1 << 60 },
	} {
		t.Run(name, func(t *testing.T) {
			m := manifest()
			edit(&m)
			got, err := trust.VerifyManifest(sign(m.Value(), newKey("dir")), root, who(), 4, now)
			if err != nil {
				t.Fatal(err)
			}
			if *got != m {
				t.Errorf("read %+v, want %+v", *got, m)
			}
		})
	}
}

func scanWithoutContent(m trust.Manifest) trust.Manifest {
	m.Action, m.Scanner, m.Level, m.BuildID = trust.Scan, "lynis", 0, ""
	m.Path, m.SHA256, m.Length = "", "", 0
	return m
}

func TestManifestRefused(t *testing.T) {
	root := directorRoot(t)
	for _, tt := range []struct {
		name string
		want error
		edit func(*trust.Manifest)
	}{
		{"another system", trust.ErrWrongSystem, func(m *trust.Manifest) { m.SystemID = "sys-2" }},
		{"another key", trust.ErrWrongSystem, func(m *trust.Manifest) { m.KeyHash = strings.Repeat("0", 64) }},
		{"counter used", trust.ErrReplay, func(m *trust.Manifest) { m.Counter = 4 }},
		{"counter lower", trust.ErrReplay, func(m *trust.Manifest) { m.Counter = 1 }},
		{"counter 0", trust.ErrMalformed, func(m *trust.Manifest) { m.Counter = 0 }},
		{"past its time", trust.ErrNotFresh, func(m *trust.Manifest) { m.Issued, m.NotAfter = now.Unix()-60, now.Unix()-1 }},
		{"lasts too long", trust.ErrNotFresh, func(m *trust.Manifest) { m.NotAfter = m.Issued + 3601 }},
		{"from the future", trust.ErrNotFresh, func(m *trust.Manifest) { m.Issued += 301 }},
		{"ends before it starts", trust.ErrMalformed, func(m *trust.Manifest) { m.NotAfter = m.Issued - 1 }},
		{"times that overflow", trust.ErrMalformed, func(m *trust.Manifest) { m.Issued, m.NotAfter = -1<<63, 1<<63-1 }},
		{"unknown action", trust.ErrMalformed, func(m *trust.Manifest) { m.Action = "run" }},
		{"no action", trust.ErrMalformed, func(m *trust.Manifest) { m.Action = "" }},
		{"no task", trust.ErrMalformed, func(m *trust.Manifest) { m.Task = "" }},
		{"path outside", trust.ErrMalformed, func(m *trust.Manifest) { m.Path = "../a" }},
		{"hash too short", trust.ErrMalformed, func(m *trust.Manifest) { m.SHA256 = m.SHA256[1:] }},
		{"level 0", trust.ErrMalformed, func(m *trust.Manifest) { m.Level = 0 }},
		{"no build-id", trust.ErrMalformed, func(m *trust.Manifest) { m.BuildID = "" }},
		{"revert without a level", trust.ErrMalformed, func(m *trust.Manifest) { m.Action, m.Level = trust.Revert, 0 }},
		{"apply with a scanner", trust.ErrMalformed, func(m *trust.Manifest) { m.Scanner = "openscap" }},
		{"scan without a scanner", trust.ErrMalformed, func(m *trust.Manifest) { *m = scanWithoutContent(*m); m.Scanner = "" }},
		{"scan of a path without a hash", trust.ErrMalformed, func(m *trust.Manifest) { *m = scanWithoutContent(*m); m.Path = "a" }},
		{"scan that names a patch", trust.ErrMalformed, func(m *trust.Manifest) { m.Action, m.Scanner = trust.Scan, "openscap" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := manifest()
			tt.edit(&m)
			_, err := trust.VerifyManifest(sign(m.Value(), newKey("dir")), root, who(), 4, now)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	m := manifest()
	for name, b := range map[string][]byte{
		"unsigned":                    sign(m.Value()),
		"signed by the root keys":     sign(m.Value(), keys("d1", "d2", "d3")...),
		"signed by the portal":        sign(m.Value(), keys("t1", "t2")...),
		"signed by the system":        sign(m.Value(), newKey("agent")),
		"changed after it was signed": []byte(strings.Replace(string(sign(m.Value(), newKey("dir"))), `"counter":5`, `"counter":6`, 1)),
	} {
		if _, err := trust.VerifyManifest(b, root, who(), 4, now); !errors.Is(err, trust.ErrThreshold) {
			t.Errorf("%s: %v, want ErrThreshold", name, err)
		}
	}
	good := sign(m.Value(), newKey("dir"))
	if _, err := trust.VerifyManifest(good, root, who(), 4, later); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("director root expired: %v", err)
	}
	if _, err := trust.VerifyManifest(append(good, make([]byte, trust.MaxManifest)...), root, who(), 4, now); !errors.Is(err, trust.ErrMalformed) {
		t.Error("a manifest over the limit is read")
	}
	if _, err := trust.RecallManifest(good, root, who()); err != nil {
		t.Errorf("an admitted manifest is not recalled: %v", err)
	}
	if _, err := trust.RecallManifest(good, root, trust.Identity{SystemID: "sys-2", KeyHash: who().KeyHash}); !errors.Is(err, trust.ErrWrongSystem) {
		t.Errorf("recalled for another system: %v", err)
	}
}

func TestDirectorRootUpdate(t *testing.T) {
	root, director := directorRoles()
	newDirector := roleKeys{keys("dir2"), 1}
	newRoot := roleKeys{keys("d4", "d5"), 2}
	for _, tt := range []struct {
		name string
		want error
		b    []byte
	}{
		{"new director key", nil, sign(directorDoc(2, root, newDirector), keys("d1", "d2")...)},
		{"new root keys", nil, sign(directorDoc(2, newRoot, director), keys("d1", "d2", "d4", "d5")...)},
		{"old keys missing", trust.ErrThreshold, sign(directorDoc(2, newRoot, director), keys("d1", "d4", "d5")...)},
		{"new keys missing", trust.ErrThreshold, sign(directorDoc(2, newRoot, director), keys("d1", "d2", "d5")...)},
		{"same version", trust.ErrVersion, sign(directorDoc(1, root, director), keys("d1", "d2")...)},
		{"skipped version", trust.ErrVersion, sign(directorDoc(3, root, director), keys("d1", "d2")...)},
		{"a portal's root", trust.ErrMalformed, sign(rootDoc(2, portalRoles()), keys("d1", "d2")...)},
		{"channel key of the wrong size", trust.ErrMalformed, sign(set(directorDoc(2, root, director), cjson.Strings([]string{"00"}), "channel_keys"), keys("d1", "d2")...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := trust.UpdateDirectorRoot(directorRoot(t), tt.b)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	next, err := trust.UpdateDirectorRoot(directorRoot(t), sign(directorDoc(2, root, newDirector), keys("d1", "d2")...))
	if err != nil {
		t.Fatal(err)
	}
	m := manifest()
	if _, err := trust.VerifyManifest(sign(m.Value(), newKey("dir")), next, who(), 4, now); !errors.Is(err, trust.ErrThreshold) {
		t.Errorf("a director key that was revoked still signs: %v", err)
	}
	if _, err := trust.VerifyManifest(sign(m.Value(), newKey("dir2")), next, who(), 4, now); err != nil {
		t.Errorf("the new director key does not sign: %v", err)
	}
	if !next.AllowsServer(channel) || next.AllowsServer(strings.Repeat("0", 64)) {
		t.Error("wrong channel keys")
	}
}

func TestAgree(t *testing.T) {
	m := manifest()
	f := targetFor("user/a.lmp", content)
	md := &patch.Metadata{Level: 2, Target: patch.Target{BuildID: buildID}}
	if err := trust.Agree(&m, f, md); err != nil {
		t.Fatalf("the same file: %v", err)
	}
	scan := m
	scan.Action, scan.Level, scan.BuildID, scan.Scanner = trust.Scan, 0, "", "openscap"
	if err := trust.Agree(&scan, f, nil); err != nil {
		t.Fatalf("the same scan content: %v", err)
	}
	for name, edit := range map[string]func(*trust.Manifest, *trust.Target, *patch.Metadata){
		"path":                 func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { m.Path = "user/b.lmp" },
		"length":               func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { m.Length++ },
		"hash":                 func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { m.SHA256 = strings.Repeat("0", 64) },
		"level in manifest":    func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { m.Level++ },
		"build-id in manifest": func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { m.BuildID = strings.Repeat("0", 40) },
		"target's hash":        func(_ *trust.Manifest, f *trust.Target, _ *patch.Metadata) { f.SHA256 = "" },
		"target's length":      func(_ *trust.Manifest, f *trust.Target, _ *patch.Metadata) { f.Length-- },
		"target's path":        func(_ *trust.Manifest, f *trust.Target, _ *patch.Metadata) { f.Path += "x" },
		"level in repository":  func(_ *trust.Manifest, _ *trust.Target, md *patch.Metadata) { md.Level-- },
		"build-id in repository": func(_ *trust.Manifest, _ *trust.Target, md *patch.Metadata) {
			md.Target.BuildID = patch.BuildID(strings.Repeat("1", 40))
		},
		"a patch ordered as a scan": func(m *trust.Manifest, _ *trust.Target, _ *patch.Metadata) { *m = scan },
	} {
		m, f, md := m, f, *md
		edit(&m, &f, &md)
		if err := trust.Agree(&m, f, &md); !errors.Is(err, trust.ErrDisagree) {
			t.Errorf("%s differs: %v, want ErrDisagree", name, err)
		}
	}
	if err := trust.Agree(&m, f, nil); !errors.Is(err, trust.ErrDisagree) {
		t.Errorf("scan content ordered as a patch: %v", err)
	}
	// Both names empty must not count as equal.
	if err := trust.Agree(&trust.Manifest{Action: trust.Scan}, trust.Target{}, nil); !errors.Is(err, trust.ErrDisagree) {
		t.Errorf("nothing agrees with nothing: %v", err)
	}
	m.Action = trust.Revert
	if err := trust.Agree(&m, trust.Target{}, nil); err != nil {
		t.Errorf("a revert asks the repository: %v", err)
	}
}

func TestManifestRoundTrip(t *testing.T) {
	root := directorRoot(t)
	rapid.Check(t, func(t *rapid.T) {
		m := manifest()
		m.Counter = rapid.Int64Range(5, 1<<62).Draw(t, "counter")
		m.Job = rapid.StringN(0, 40, 200).Draw(t, "job")
		m.Task = rapid.StringN(1, 40, 200).Draw(t, "task")
		m.Level = rapid.Int64Range(1, 1<<40).Draw(t, "level")
		m.Issued = now.Unix() - rapid.Int64Range(0, 3600).Draw(t, "age")
		m.NotAfter = rapid.Int64Range(m.Issued, m.Issued+3600).Draw(t, "end")
		got, err := trust.VerifyManifest(sign(m.Value(), newKey("dir")), root, who(), 4, now)
		if want := now.Unix() <= m.NotAfter; want != (err == nil) {
			t.Fatalf("%+v: %v", m, err)
		}
		if err == nil && *got != m {
			t.Fatalf("read %+v, want %+v", *got, m)
		}
	})
}
