package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/portal/portaltest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	trustclient "livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
)

const path = "content/demo.xml"

// next returns the targets metadata that follows doc, with one more target,
// signed by the given keys.
func next(t *testing.T, p *portaltest.Portal, doc, content []byte, keys ...string) []byte {
	t.Helper()
	sum := sha256.Sum256(content)
	described := patch.Content{Scanner: "openscap", Format: "oval-definitions-5.11", Title: "demo"}
	unsigned, err := repo.AddTarget(doc, trust.Target{
		Path: path, Length: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Custom: described.Custom(),
	}, p.Now().Add(repo.TargetsLife))
	if err != nil {
		t.Fatal(err)
	}
	var signers []repo.Signer
	for _, name := range keys {
		k, err := repo.LoadKey(name)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, k)
	}
	signed, err := repo.Sign(t.Context(), unsigned, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// get asks for a file of the repository.
func get(t *testing.T, c *client.Client, name string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Repository()+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp, string(content)
}

func TestPublishedFilesAreWhatAReaderTrusts(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	vendor := p.Vendor(t)
	content := []byte("<definitions/>")
	first := read(t, p.Keys.Targets)
	good := next(t, p, first, content, p.Keys.TargetsKeys...)
	files := map[string][]byte{path: content}

	for what, bad := range map[string]struct {
		targets []byte
		files   map[string][]byte
	}{
		"signed by one key of two": {next(t, p, first, content, p.Keys.TargetsKeys[0]), files},
		"signed by a stranger":     {next(t, p, first, content, p.Keys.TargetsKeys[0], p.Keys.RootKeys[0]), files},
		"file not given":           {good, nil},
		"other content, same size": {good, map[string][]byte{path: []byte("<definitionz/>")}},
		"not metadata":             {[]byte("{}"), files},
	} {
		if err := vendor.Publish(t.Context(), bad.targets, bad.files); codeOf(err) != "422 invalid" {
			t.Errorf("%s: %v, want 422 invalid", what, err)
		}
	}
	cache, err := trustclient.OpenFolder(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if err := trustclient.Pin(cache, read(t, p.Keys.Root), trust.Ed25519()); err != nil {
		t.Fatal(err)
	}
	refresh := func() *trust.Trusted {
		t.Helper()
		trusted, err := trustclient.Refresh(t.Context(), cache, vendor, trust.Ed25519(), p.Now())
		if err != nil {
			t.Fatal(err)
		}
		return trusted
	}
	if v := refresh().TargetsVersion(); v != 1 {
		t.Errorf("after refused releases the targets have version %d, want 1", v)
	}
	for range 2 { // the second time as after a lost answer
		if err := vendor.Publish(t.Context(), good, files); err != nil {
			t.Fatal(err)
		}
	}
	trusted := refresh()
	target, err := trusted.Target(path)
	if err != nil || trusted.TargetsVersion() != 2 {
		t.Fatalf("version %d, %v", trusted.TargetsVersion(), err)
	}
	if _, got := get(t, vendor, "targets/"+target.StorageName()); got != string(content) {
		t.Errorf("the repository serves %q", got)
	}
}

func TestRepositoryFiles(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	vendor := p.Vendor(t)
	resp, whole := get(t, vendor, "1.targets.json")
	if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("1.targets.json: %d %v", resp.StatusCode, resp.Header)
	}
	tag := resp.Header.Get("ETag")
	if resp, _ := get(t, vendor, "1.targets.json", "If-None-Match", tag); tag == "" || resp.StatusCode != http.StatusNotModified {
		t.Errorf("asked again with its tag %q: %d", tag, resp.StatusCode)
	}
	if resp, part := get(t, vendor, "1.targets.json", "Range", "bytes=1-4"); resp.StatusCode != 206 || part != whole[1:5] {
		t.Errorf("range: %d %q", resp.StatusCode, part)
	}
	stamp, before := get(t, vendor, "timestamp.json")
	if stamp.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("timestamp.json may be cached: %v", stamp.Header)
	}
	for _, name := range []string{"", "targets", "targets/", ".lock", "snapshot.json", "9.root.json", "../staging/x", "..%2fkeys%2froot-1.key", "targets/..%2f..%2fkeys%2froot-1.key"} {
		if resp, _ := get(t, vendor, name); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %d, want 404", name, resp.StatusCode)
		}
	}
	// Half its life later the timestamp is signed again, and its tag changes.
	p.Advance(repo.TimestampLife * 3 / 4)
	if err := p.Service.Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	renewed, after := get(t, vendor, "timestamp.json", "If-None-Match", stamp.Header.Get("ETag"))
	if renewed.StatusCode != 200 || after == before {
		t.Errorf("after the upkeep: %d, changed: %v", renewed.StatusCode, after != before)
	}
}

func TestUploads(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	vendor := p.Vendor(t)
	content := []byte("<definitions/>")
	release := next(t, p, read(t, p.Keys.Targets), content, p.Keys.TargetsKeys...)
	if err := vendor.Publish(t.Context(), []byte("{}"), map[string][]byte{path: content}); codeOf(err) != "422 invalid" {
		t.Fatal(err)
	}
	// The upload waits for a release that is right, but not for ever.
	p.Advance(25 * time.Hour)
	if err := p.Service.Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := p.Uploads(t); left != 0 {
		t.Errorf("%d forgotten uploads stay", left)
	}
	if err := vendor.Publish(t.Context(), release, map[string][]byte{path: content}); err != nil {
		t.Fatal(err)
	}
	if left := p.Uploads(t); left != 0 {
		t.Errorf("%d uploads stay after their release", left)
	}
}
