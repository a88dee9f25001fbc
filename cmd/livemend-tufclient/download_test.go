package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

func TestDownload(t *testing.T) {
	r := newRepository(t)
	r.add("targets", "target_file.txt", "target file contents")
	r.add("targets", "path/to/a/target_file.txt", "in a folder")
	r.add("targets", "odd/a b%20?#é+&;=.txt", "odd name")
	r.add("targets", "empty", "")
	r.publish("targets", "snapshot", "timestamp")
	u := started(t, r)
	u.must(u.refresh(r), 0)
	u.wantHave()
	u.must(u.download(r, "target_file.txt"), 0)
	u.wantHave("target file contents")
	u.must(u.download(r, "path/to/a/target_file.txt", "odd/a b%20?#é+&;=.txt", "empty"), 0)
	u.wantHave("target file contents", "in a folder", "odd name", "")
	for _, name := range []string{"target_file.txt", "path%2Fto%2Fa%2Ftarget_file.txt", "odd%2Fa%20b%2520%3F%23%C3%A9%2B%26%3B%3D.txt", "empty"} {
		if _, err := os.Stat(filepath.Join(u.targets, name)); err != nil {
			t.Error(err)
		}
	}
	if got := r.downloads(); len(got) != 4 || got[0] != sumOf("sha256", []byte("target file contents"))+".target_file.txt" {
		t.Errorf("downloaded %v", got)
	}
	u.must(u.download(r, "target_file.txt", "path/to/a/target_file.txt", "empty"), 0)
	if got := r.downloads(); len(got) > 0 {
		t.Errorf("what is there was downloaded again: %v", got)
	}
}

func TestLongTargetNames(t *testing.T) {
	r := newRepository(t)
	long := strings.Repeat("dir/", 60) + "file"
	r.add("targets", long, "one")
	r.add("targets", long+"2", "two")
	r.publish("targets", "snapshot", "timestamp")
	u := started(t, r)
	u.must(u.download(r, long, long+"2"), 0)
	u.wantHave("one", "two")
}

func TestTargetThatChanges(t *testing.T) {
	r := newRepository(t)
	r.add("targets", "file", "version 0")
	r.publish("targets", "snapshot", "timestamp")
	u := started(t, r)
	for i := range 10 {
		content := "version " + string(rune('0'+i))
		r.add("targets", "file", content)
		r.publish("targets", "snapshot", "timestamp")
		u.must(u.download(r, "file"), 0)
		u.wantHave(content)
		// Another file of the same length in its place, with and without new metadata.
		r.artifacts["file"] = []byte("malicious"[:len(content)])
		u.must(u.download(r, "file"), 0)
		u.wantHave(content)
		r.publish("targets", "snapshot", "timestamp")
		u.must(u.download(r, "file"), 0)
		u.wantHave(content)
	}
}

// TestSubstitution serves something else instead of a target.
func TestSubstitution(t *testing.T) {
	const good = "target file contents"
	for _, tt := range []struct {
		name, served string
		want         error
	}{
		{"longer", "malicious data - should not be stored", errLong},
		{"shorter", "malicious", trust.ErrLength},
		{"same length", "malicious data, 20 c", trust.ErrHash},
		{"one bit", "target file contentr", trust.ErrHash},
		{"empty", "", trust.ErrLength},
	} {
		r := newRepository(t)
		r.add("targets", "good", "content")
		r.add("targets", "file", good)
		r.publish("targets", "snapshot", "timestamp")
		u := started(t, r)
		u.must(u.download(r, "good"), 0)
		r.artifacts["file"] = []byte(tt.served)
		u.refused(u.download(r, "file"), tt.want)
		u.wantHave("content")
		// What is stored is not spared either: a disk may damage it.
		if err := os.WriteFile(filepath.Join(u.targets, "file"), []byte(tt.served), 0o600); err != nil {
			t.Fatal(err)
		}
		r.artifacts["file"] = []byte(good)
		u.must(u.download(r, "file"), 0)
		u.wantHave("content", good)
	}
}

func TestHashAlgorithms(t *testing.T) {
	for _, hashes := range [][]string{{"sha256"}, {"sha512"}, {"sha256", "sha512"}} {
		r := newRepository(t)
		r.add("targets", "file", "content", hashes...)
		r.publish("targets", "snapshot", "timestamp")
		u := started(t, r)
		u.must(u.download(r, "file"), 0)
		u.wantHave("content")
		if got := r.downloads(); len(got) != 1 || !slices.ContainsFunc(hashes, func(h string) bool {
			return got[0] == sumOf(h, []byte("content"))+".file"
		}) {
			t.Errorf("%v: downloaded %v", hashes, got)
		}
		r.artifacts["file"] = []byte("CONTENT")
		other := started(t, r)
		other.refused(other.download(r, "file"), trust.ErrHash)
	}
	r := newRepository(t)
	r.add("targets", "file", "content")
	entry, _ := r.docs["targets"].fields["targets"].Get("file")
	entry = set(entry, "hashes", cjson.Object(cjson.F("unknown-hash", cjson.String(sumOf("sha256", []byte("content"))))))
	r.docs["targets"].fields["targets"] = cjson.Object(cjson.F("file", entry))
	r.publish("targets", "snapshot", "timestamp")
	u := started(t, r)
	u.must(u.download(r, "file"), 1)
	u.wantHave()
}

func TestFirstRefusedTargetEndsTheRun(t *testing.T) {
	r := newRepository(t)
	for _, name := range []string{"a", "b", "c"} {
		r.add("targets", name, "content of "+name)
	}
	r.publish("targets", "snapshot", "timestamp")
	r.artifacts["b"] = []byte("content of x")
	u := started(t, r)
	u.refused(u.download(r, "a", "b", "c"), trust.ErrHash)
	u.wantHave("content of a")
}

func TestMissingTarget(t *testing.T) {
	r := newRepository(t)
	r.add("targets", "file", "content")
	r.publish("targets", "snapshot", "timestamp")
	r.answer = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasPrefix(req.URL.Path, "/targets/") {
			http.NotFound(w, req)
			return true
		}
		return false
	}
	u := started(t, r)
	u.must(u.download(r, "file"), 1)
	u.wantHave()
	r.answer = nil
	u.must(u.download(r, "file"), 0)
	u.wantHave("content")
}

func TestAddressesWithoutSlash(t *testing.T) {
	r := newRepository(t)
	r.add("targets", "file", "content")
	r.publish("targets", "snapshot", "timestamp")
	u := started(t, r)
	r.settle()
	u.must(u.run("--metadata-dir", u.metadata, "--metadata-url", r.url+"/metadata", "--target-name", "file",
		"--target-base-url", r.url+"/targets", "--target-dir", filepath.Join(u.targets, "new", "folder"), "download"), 0)
	if b, err := os.ReadFile(filepath.Join(u.targets, "new", "folder", "file")); string(b) != "content" {
		t.Error(err)
	}
}
