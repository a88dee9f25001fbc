package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// writePatch writes a small, valid artifact for the library imageFor and
// metadata for the library metadataFor.
func writePatch(t *testing.T, dir string, imageFor, metadataFor patch.BuildID) (artifact, metadata string) {
	t.Helper()
	code, err := image.Encode(&image.File{
		BuildID: imageFor, Arch: "amd64",
		Segments: []image.Segment{{Prot: image.ReadExec, Size: image.PageSize, Data: []byte{0xc3}}},
		Hunks:    []image.Hunk{{Name: "f", Off: 0x1000, Size: 8, Entry: [image.EntrySize]byte{1, 2, 3, 4, 5, 6, 7, 8}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	md := patch.Metadata{
		ID: "U1", Kind: patch.User, Level: 1, Target: patch.Target{BuildID: metadataFor, Arch: "amd64", Library: "libx"},
		Fixes: []patch.Fix{{CVE: "DEMO-2026-0001", Severity: "high", Component: "libx"}},
	}
	artifact, metadata = filepath.Join(dir, "u1.lmp"), filepath.Join(dir, "u1.json")
	for path, content := range map[string][]byte{artifact: code, metadata: md.Custom().Canonical()} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return artifact, metadata
}

func TestPublishPatch(t *testing.T) {
	dir := t.TempDir()
	keys, data, vendor := filepath.Join(dir, "keys"), filepath.Join(dir, "portal"), filepath.Join(dir, "vendor")
	mustRun(t, "repo", "init", keys)
	if err := os.WriteFile(vendor, []byte(mustRun(t, "portal", "partner", "add", "vendor", "--vendor", "--data", data)), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ := start(t, "portal", "serve", "--data", data, "--listen", "127.0.0.1:0",
		"--root", filepath.Join(keys, "root.json"), "--online-keys", keys)
	publish := func(artifact, metadata string) (string, error) {
		return run(t, "patch", "publish", "--portal", url, "--credential-file", vendor, "--keys", keys, artifact, metadata)
	}
	one, two := patch.BuildID(strings.Repeat("ab", 20)), patch.BuildID(strings.Repeat("cd", 20))
	if _, err := publish(writePatch(t, dir, one, two)); err == nil {
		t.Error("an image for one library was published with metadata for another")
	}
	artifact, metadata := writePatch(t, dir, one, one)
	whole, err := os.ReadFile(artifact)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(artifact, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := publish(artifact, metadata); err == nil {
		t.Error("a truncated image was published")
	}
	if got := get(t, url+"/repo/2.targets.json"); !strings.Contains(got, "not-found") {
		t.Errorf("something was published: %s", got)
	}
	out, err := publish(writePatch(t, dir, one, one))
	if err != nil || !strings.Contains(out, "published user/"+string(one)+"/level-1.lmp") {
		t.Errorf("publish printed %q, %v", out, err)
	}
	if got := get(t, url+"/repo/2.targets.json"); !strings.Contains(got, "DEMO-2026-0001") {
		t.Errorf("2.targets.json = %s", got)
	}
}
