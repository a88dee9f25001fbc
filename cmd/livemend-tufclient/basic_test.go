package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func TestInitAndRefresh(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	if len(r.requests()) > 0 {
		t.Error("init asks the repository")
	}
	u.must(u.refresh(r), 0)
	if got := r.requests(); !slices.Equal(got, []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"}) {
		t.Errorf("asked for %v", got)
	}
	u.wantTrusted("root 1", "timestamp 1", "snapshot 1", "targets 1")
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		if !bytes.Equal(u.stored(role+".json"), r.published[role][0]) {
			t.Errorf("%s is not stored as it was published", role)
		}
	}
	u.must(u.refresh(r), 0)
	if got := r.requests(); !slices.Equal(got, []string{"2.root.json", "timestamp.json"}) {
		t.Errorf("the second time it asked for %v", got)
	}
}

func TestDownloadRefreshes(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	u.refused(u.download(r, "nonexistent artifact"), trust.ErrNoTarget)
	if got := r.requests(); !slices.Equal(got, []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"}) {
		t.Errorf("asked for %v", got)
	}
	u.wantTrusted("root 1", "timestamp 1", "snapshot 1", "targets 1")
}

func TestBadInitialRoot(t *testing.T) {
	r := newRepository(t)
	good := r.published["root"][0]
	for name, root := range map[string][]byte{
		"without a version": bytes.Replace(good, []byte(`"version":1`), []byte(`"version1":1`), 1),
		"another signature": bytes.Replace(good, []byte(`"sig":"30`), []byte(`"sig":"31`), 1),
		"no JSON":           []byte("<html>"),
		"empty":             {},
		"the same name twice": bytes.Replace(good, []byte(`"_type":"root"`),
			[]byte(`"_type":"root","_type":"root"`), 1),
	} {
		u := newUser(t)
		u.must(u.init(root), 1)
		u.must(u.refresh(r), 1)
		if got := r.requests(); len(got) > 0 {
			t.Errorf("%s: asked for %v", name, got)
		}
	}
}

func TestUnsignedMetadata(t *testing.T) {
	for _, tt := range []struct {
		role    string
		trusted []string
	}{
		{"root", []string{"root 1"}},
		{"timestamp", []string{"root 1"}},
		{"snapshot", []string{"root 1", "timestamp 2"}},
		{"targets", []string{"root 1", "timestamp 2", "snapshot 2"}},
	} {
		t.Run(tt.role, func(t *testing.T) {
			r := newRepository(t)
			r.docs[tt.role].signers = nil
			if tt.role == "root" {
				r.publish("root")
			} else {
				r.publish("targets", "snapshot", "timestamp")
			}
			u := started(t, r)
			u.refused(u.refresh(r), trust.ErrThreshold)
			u.wantTrusted(tt.trusted...)
		})
	}
}

func TestMissingFiles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trusted []string
	}{
		{"timestamp.json", []string{"root 1"}},
		{"1.snapshot.json", []string{"root 1", "timestamp 1"}},
		{"1.targets.json", []string{"root 1", "timestamp 1", "snapshot 1"}},
	} {
		for _, status := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusInternalServerError} {
			r := newRepository(t)
			r.answer = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, "/"+tt.name) {
					return false
				}
				w.WriteHeader(status)
				return true
			}
			u := started(t, r)
			u.must(u.refresh(r), 1)
			u.wantTrusted(tt.trusted...)
		}
	}
}

// TestRootThatCanNotBeHad tells a server that fails from one without the file.
func TestRootThatCanNotBeHad(t *testing.T) {
	r := newRepository(t)
	r.answer = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, "root.json") {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	u := started(t, r)
	u.must(u.refresh(r), 1)
	u.wantTrusted("root 1")
}

func TestUnknownFields(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	u.must(u.refresh(r), 0)
	r.edit = func(role string, v cjson.Value) cjson.Value {
		v = set(v, "custom-field", cjson.Object(cjson.F("a", cjson.Array(cjson.Int(1), cjson.Value{}))))
		if role == "root" {
			v = set(v, "roles.root.another-field", cjson.String("value"))
			v = set(v, "roles.mirrors", cjson.Object())
			id := r.grants["snapshot"].keys[0].id
			v = set(v, "keys."+id+".keyid_hash_algorithms", cjson.String("md5"))
			v = set(v, "keys."+id+".extra-field", cjson.Object(cjson.F("b", cjson.Int(2))))
		}
		return v
	}
	r.publish("root", "targets", "snapshot", "timestamp")
	u.must(u.refresh(r), 0)
	u.wantTrusted("root 2", "timestamp 2", "snapshot 2", "targets 2")
	// A field that nobody knows is signed all the same.
	r.publish("targets", "snapshot", "timestamp")
	last := len(r.published["targets"]) - 1
	r.published["targets"][last] = bytes.Replace(r.published["targets"][last], []byte("custom-field"), []byte("custom-fielt"), 1)
	u.refused(u.refresh(r), trust.ErrThreshold)
}

func TestSpecificationVersions(t *testing.T) {
	for version, want := range map[string]int{"1.0": 0, "1.0.0": 0, "1.0.999": 0, "1.7.3": 0, "2.0.0": 1, "0.9": 1, "10.0": 1, "1": 1, "": 1} {
		r := newRepository(t)
		u := started(t, r)
		r.edit = func(role string, v cjson.Value) cjson.Value { return set(v, "spec_version", cjson.String(version)) }
		r.publish("timestamp")
		if got := u.refresh(r); got != want {
			t.Errorf("spec_version %q: exit status %d, want %d: %s", version, got, want, u.said)
		}
	}
}

func TestWithoutConsistentSnapshots(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	r.consistent = false
	r.delegate("targets", delegation{name: "role", paths: []string{"dir/*"}})
	r.add("role", "dir/file", "content")
	r.publish("root")
	r.publish(r.all()...)
	u.must(u.download(r, "dir/file"), 0)
	if got := r.requests(); !slices.Equal(got, []string{"2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json", "role.json"}) {
		t.Errorf("asked for %v", got)
	}
	if got := r.downloads(); !slices.Equal(got, []string{"dir/file"}) {
		t.Errorf("downloaded %v", got)
	}
	u.wantHave("content")
}

func TestCommandLine(t *testing.T) {
	u := newUser(t)
	for _, args := range [][]string{
		nil,
		{"refresh"},
		{"--metadata-dir", u.metadata},
		{"--metadata-dir", u.metadata, "refresh"},
		{"--metadata-dir", u.metadata, "init"},
		{"--metadata-dir", u.metadata, "init", "a", "b"},
		{"--metadata-dir", u.metadata, "init", filepath.Join(u.metadata, "missing")},
		{"--metadata-dir", u.metadata, "--metadata-url", "http://127.0.0.1:1/", "explode"},
		{"--metadata-dir", u.metadata, "--metadata-url", "http://127.0.0.1:1/", "--target-name", "x", "download"},
		{"--metadata-dir", u.metadata, "--no-such-flag", "refresh"},
	} {
		if got := u.run(args...); got != 1 || u.said == "" {
			t.Errorf("%v: exit status %d, said %q", args, got, u.said)
		}
	}
	if entries, err := os.ReadDir(u.metadata); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
