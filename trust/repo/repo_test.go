package repo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
)

var now = time.Now().Truncate(time.Second)

const buildID = "0123456789abcdef0123456789abcdef01234567"

// portal is a repository, its keys, and the targets document as its publisher
// has it.
type portal struct {
	*testing.T
	dir     string // of the repository
	files   repo.RepositoryFiles
	repo    *repo.Repository
	targets []byte
	given   fstest.MapFS
}

func newPortal(t *testing.T) *portal {
	t.Helper()
	files, err := repo.Ceremony{RootKeys: 3, RootThreshold: 2, TargetsKeys: 2, TargetsThreshold: 2}.Run(t.Context(), t.TempDir()+"/keys", now)
	if err != nil {
		t.Fatal(err)
	}
	p := &portal{T: t, dir: t.TempDir() + "/repo", files: files, given: fstest.MapFS{}}
	p.open()
	p.targets = p.file(files.Targets)
	if err := p.repo.Init(t.Context(), p.file(files.Root), p.targets, now); err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens the repository like a process that was just started.
func (p *portal) open() {
	p.Helper()
	r, err := repo.Open(p.dir, repo.Online{Snapshot: p.key(p.files.Snapshot), Timestamp: p.key(p.files.Timestamp)})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if err := r.Close(); err != nil {
			p.Error(err)
		}
	})
	p.repo = r
}

func (p *portal) file(path string) []byte {
	p.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		p.Fatal(err)
	}
	return b
}

func (p *portal) key(path string) *repo.KeyFile {
	p.Helper()
	k, err := repo.LoadKey(path)
	if err != nil {
		p.Fatal(err)
	}
	return k
}

// signed returns doc signed by both targets keys, one after the other.
func (p *portal) signed(doc []byte) []byte {
	p.Helper()
	for _, path := range p.files.TargetsKeys {
		var err error
		if doc, err = repo.Sign(p.Context(), doc, p.key(path)); err != nil {
			p.Fatal(err)
		}
	}
	return doc
}

func (p *portal) add(t trust.Target, content string) {
	p.Helper()
	var err error
	if p.targets, err = repo.AddTarget(p.targets, t, now.Add(repo.TargetsLife)); err != nil {
		p.Fatal(err)
	}
	p.given[t.Path] = &fstest.MapFile{Data: []byte(content)}
}

func (p *portal) publish() error {
	return p.repo.Publish(p.Context(), p.signed(p.targets), p.given, now)
}

// patchTarget describes a patch for buildID.
func patchTarget(level int64, content string, fixes ...patch.CVE) trust.Target {
	md := patch.Metadata{ID: fmt.Sprintf("U-%d", level), Kind: patch.User, Level: level,
		Target: patch.Target{BuildID: buildID, Arch: "amd64"}}
	for _, f := range fixes {
		md.Fixes = append(md.Fixes, patch.Fix{CVE: f})
	}
	sum := sha256.Sum256([]byte(content))
	return trust.Target{Path: md.Path(), Length: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Custom: md.Custom()}
}

// fetcher reads a repository over HTTP.
type fetcher struct{ url string }

func (f fetcher) Fetch(ctx context.Context, name string, _ int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode == http.StatusNotFound {
		return nil, client.ErrNotFound
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return b.Bytes(), err
}

func (p *portal) refresh(url string, cache client.Cache, at time.Time) (*trust.Trusted, error) {
	p.Helper()
	if err := client.Pin(cache, p.file(p.files.Root), trust.Ed25519()); err != nil {
		p.Fatal(err)
	}
	return client.Refresh(p.Context(), cache, fetcher{url}, trust.Ed25519(), at)
}

func (p *portal) serve() string {
	server := httptest.NewServer(http.FileServer(http.Dir(p.dir)))
	p.Cleanup(server.Close)
	return server.URL
}

func (p *portal) cache() *client.Folder {
	p.Helper()
	f, err := client.OpenFolder(p.TempDir())
	if err != nil {
		p.Fatal(err)
	}
	return f
}

func TestOtherImplementationReadsIt(t *testing.T) {
	p := newPortal(t)
	p.add(patchTarget(1, "first level", "CVE-1"), "first level")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	second := patchTarget(2, "second level", "CVE-1", "CVE-2")
	p.add(second, "second level")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	// Rotate the root too, so that the other implementation follows it.
	root := rotated(p, nil)
	if err := p.repo.PublishRoot(t.Context(), root, now); err != nil {
		t.Fatal(err)
	}
	url := p.serve()
	cfg, err := config.New(url, p.file(p.files.Root))
	if err != nil {
		t.Fatal(err)
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = t.TempDir(), t.TempDir()
	reader, err := updater.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Refresh(); err != nil {
		t.Fatalf("go-tuf refuses the repository: %v", err)
	}
	if v := reader.GetTrustedMetadataSet().Root.Signed.Version; v != 2 {
		t.Errorf("go-tuf has root version %d, want 2", v)
	}
	info, err := reader.GetTargetInfo(second.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := reader.DownloadTarget(info, "", ""); err != nil || string(b) != "second level" {
		t.Errorf("go-tuf downloads %q, %v", b, err)
	}

	trusted, err := p.refresh(url, p.cache(), now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := trusted.Target(second.Path)
	if err != nil {
		t.Fatal(err)
	}
	md, err := patch.ParseCustom(got.Custom)
	if err != nil || !md.Covers("CVE-2") || md.Level != 2 {
		t.Errorf("metadata %+v, %v", md, err)
	}
	b, err := fetcher{url}.Fetch(t.Context(), "targets/"+got.StorageName(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.CheckContent(got, bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
}

// rotated returns root version 2, signed by enough root keys.
func rotated(p *portal, edit func(*repo.RootSpec)) []byte {
	p.Helper()
	spec := repo.RootSpec{Version: 2, Expires: now.Add(repo.RootLife), RootThreshold: 2, TargetsThreshold: 2,
		Snapshot: p.key(p.files.Snapshot).Public(), Timestamp: p.key(p.files.Timestamp).Public()}
	var signers []repo.Signer
	for _, path := range p.files.RootKeys {
		spec.RootKeys = append(spec.RootKeys, p.key(path).Public())
		signers = append(signers, p.key(path))
	}
	for _, path := range p.files.TargetsKeys {
		spec.TargetsKeys = append(spec.TargetsKeys, p.key(path).Public())
	}
	if edit != nil {
		edit(&spec)
	}
	doc, err := repo.NewRoot(spec)
	if err != nil {
		p.Fatal(err)
	}
	if doc, err = repo.Sign(p.Context(), doc, signers...); err != nil {
		p.Fatal(err)
	}
	return doc
}
