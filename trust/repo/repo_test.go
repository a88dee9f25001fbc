package repo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"livemend.dev/livemend/internal/cjson"
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

func TestPublishRefuses(t *testing.T) {
	good := patchTarget(1, "first level", "CVE-1", "CVE-2")
	for _, tt := range []struct {
		name string
		want error
		do   func(p *portal) error
	}{
		{"one signature of two", trust.ErrThreshold, func(p *portal) error {
			p.add(patchTarget(2, "x", "CVE-1", "CVE-2"), "x")
			doc, err := repo.Sign(p.Context(), p.targets, p.key(p.files.TargetsKeys[0]))
			if err != nil {
				p.Fatal(err)
			}
			return p.repo.Publish(p.Context(), doc, p.given, now)
		}},
		{"version skipped", repo.ErrPublished, func(p *portal) error {
			p.add(patchTarget(2, "x", "CVE-1", "CVE-2"), "x")
			p.add(patchTarget(3, "y", "CVE-1", "CVE-2"), "y")
			return p.publish()
		}},
		{"file missing", repo.ErrPublished, func(p *portal) error {
			t := patchTarget(2, "x", "CVE-1", "CVE-2")
			p.add(t, "x")
			delete(p.given, t.Path)
			return p.publish()
		}},
		{"same length, other content", trust.ErrHash, func(p *portal) error {
			p.add(patchTarget(2, "x", "CVE-1", "CVE-2"), "y")
			return p.publish()
		}},
		{"file too long", trust.ErrLength, func(p *portal) error {
			p.add(patchTarget(2, "x", "CVE-1", "CVE-2"), "xx")
			return p.publish()
		}},
		{"length differs, content is right", trust.ErrLength, func(p *portal) error {
			t := patchTarget(2, "x", "CVE-1", "CVE-2")
			t.Length = 2
			p.add(t, "x")
			return p.publish()
		}},
		{"a level that lacks a fix", repo.ErrPublished, func(p *portal) error {
			p.add(patchTarget(2, "x", "CVE-1", "CVE-3"), "x")
			return p.publish()
		}},
		{"a level in between that lacks a fix", repo.ErrPublished, func(p *portal) error {
			p.add(patchTarget(3, "x", "CVE-1", "CVE-2"), "x")
			if err := p.publish(); err != nil {
				p.Fatal(err)
			}
			p.add(patchTarget(2, "y", "CVE-1"), "y")
			return p.publish()
		}},
		{"a published level with other content", repo.ErrPublished, func(p *portal) error {
			p.add(patchTarget(1, "x", "CVE-1", "CVE-2"), "x")
			return p.publish()
		}},
		{"metadata under another path", repo.ErrPublished, func(p *portal) error {
			t := patchTarget(2, "x", "CVE-1", "CVE-2")
			t.Path = "user/other.lmp"
			p.add(t, "x")
			return p.publish()
		}},
		{"metadata that is not well formed", repo.ErrPublished, func(p *portal) error {
			p.add(patchTarget(2, "x"), "x") // fixes nothing
			return p.publish()
		}},
		{"the same id twice", repo.ErrPublished, func(p *portal) error {
			t := patchTarget(2, "x", "CVE-1", "CVE-2")
			inner, _ := t.Custom.Get("livemend")
			t.Custom = cjson.Object(cjson.F("livemend", cjson.Object(append(inner.Members(), cjson.F("id", cjson.String("U-1")))...)))
			p.add(t, "x")
			return p.publish()
		}},
		{"neither patch nor content", repo.ErrPublished, func(p *portal) error {
			t := patchTarget(2, "x", "CVE-1")
			t.Custom = cjson.Object(cjson.F("livemend", cjson.Object(cjson.F("type", cjson.String("surprise")))))
			p.add(t, "x")
			return p.publish()
		}},
		{"expired", repo.ErrPublished, func(p *portal) error {
			doc, err := repo.AddTarget(p.targets, good, now)
			if err != nil {
				p.Fatal(err)
			}
			p.targets = doc
			return p.publish()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPortal(t)
			p.add(good, "first level")
			if err := p.publish(); err != nil {
				t.Fatal(err)
			}
			err := tt.do(p)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			trusted, err := p.repo.Trusted(now)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := trusted.Target(good.Path); err != nil || got.SHA256 != good.SHA256 {
				t.Errorf("the refusal changed what is published: %v", err)
			}
		})
	}
}

func TestWithdrawal(t *testing.T) {
	p := newPortal(t)
	first, second := patchTarget(1, "one", "CVE-1"), patchTarget(2, "two", "CVE-1", "CVE-2")
	p.add(first, "one")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	p.add(second, "two")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.targets, err = repo.RemoveTarget(p.targets, second.Path, now.Add(repo.TargetsLife)); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.RemoveTarget(p.targets, second.Path, now); !errors.Is(err, repo.ErrSpec) {
		t.Errorf("withdrawn twice: %v", err)
	}
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	trusted, err := p.repo.Trusted(now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trusted.Target(second.Path); !errors.Is(err, trust.ErrNoTarget) {
		t.Errorf("the withdrawn patch is offered: %v", err)
	}
	if _, err := trusted.Target(first.Path); err != nil {
		t.Errorf("the other patch is gone: %v", err)
	}
	// With the level that had it withdrawn, a fix may be dropped.
	p.add(patchTarget(3, "three", "CVE-1"), "three")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
}

// failing is a signer that breaks down.
type failing struct {
	repo.Signer
	err error
}

func (f failing) Sign(context.Context, []byte) ([]byte, error) { return nil, f.err }

func TestInterruptedPublicationIsRunAgain(t *testing.T) {
	p := newPortal(t)
	target := patchTarget(1, "one", "CVE-1")
	p.add(target, "one")
	// Everything of the next version is written, by a process that got no
	// further: the artifact, the targets file, a snapshot of other content.
	for name, content := range map[string]string{
		"targets/" + target.StorageName(): "one",
		"2.targets.json":                  "half a fi",
		"2.snapshot.json":                 "half a fi",
		".new-left-by-a-crash":            "half a fi",
	} {
		path := filepath.Join(p.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	p.open()
	broken := errors.New("the signer broke down")
	half, err := repo.Open(p.dir, repo.Online{Snapshot: p.key(p.files.Snapshot), Timestamp: failing{p.key(p.files.Timestamp), broken}})
	if err != nil {
		t.Fatal(err)
	}
	if err := half.Publish(t.Context(), p.signed(p.targets), p.given, now); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if err := half.Close(); err != nil {
		t.Fatal(err)
	}
	if trusted, err := p.repo.Trusted(now); err != nil || trusted.TargetsVersion() != 1 {
		t.Fatalf("before the timestamp is signed readers must see the old state: %v", err)
	}
	delete(p.given, target.Path) // what the first run stored is enough
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	if err := p.publish(); err != nil {
		t.Errorf("publishing what is current again: %v", err)
	}
	trusted, err := p.repo.Trusted(now)
	if err != nil || trusted.TargetsVersion() != 2 || trusted.TimestampVersion() != 2 {
		t.Errorf("targets %d, timestamp %d, %v", trusted.TargetsVersion(), trusted.TimestampVersion(), err)
	}
}

func TestRenew(t *testing.T) {
	p := newPortal(t)
	cache, url := p.cache(), p.serve()
	at := now
	renew := func(want bool) {
		t.Helper()
		if got, err := p.repo.Renew(t.Context(), at); err != nil || got != want {
			t.Fatalf("at +%v Renew() = %v, %v, want %v", at.Sub(now), got, err, want)
		}
	}
	renew(false)
	at = now.Add(repo.TimestampLife/2 - time.Second)
	renew(false)
	at = now.Add(repo.TimestampLife)
	if _, err := p.refresh(url, cache, at); !errors.Is(err, trust.ErrExpired) {
		t.Fatalf("a repository that nobody renews: %v, want ErrExpired", err)
	}
	renew(true)
	renew(false)
	if _, err := p.refresh(url, cache, at); err != nil {
		t.Fatal(err)
	}
	// For three weeks, twice a day: readers never meet an expired file.
	for range 42 {
		at = at.Add(12 * time.Hour)
		renew(true)
		if _, err := p.refresh(url, cache, at); err != nil {
			t.Fatalf("at +%v: %v", at.Sub(now), err)
		}
	}
}

func TestPublishRoot(t *testing.T) {
	p := newPortal(t)
	cache, url := p.cache(), p.serve()
	if _, err := p.refresh(url, cache, now); err != nil {
		t.Fatal(err)
	}
	newKey := func(name string) string {
		path := filepath.Join(t.TempDir(), name)
		if _, err := repo.CreateKey(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := p.repo.PublishRoot(t.Context(), rotated(p, func(s *repo.RootSpec) { s.Version = 3 }), now); !errors.Is(err, trust.ErrVersion) {
		t.Errorf("a skipped version: %v", err)
	}
	stranger := newKey("stranger")
	if err := p.repo.PublishRoot(t.Context(), rotated(p, func(s *repo.RootSpec) { s.Timestamp = p.key(stranger).Public() }), now); !errors.Is(err, repo.ErrPublished) {
		t.Errorf("a root without this portal's online key: %v", err)
	}
	// New online keys: started with them, the portal publishes the root.
	p.files.Snapshot, p.files.Timestamp = newKey("s"), newKey("ts")
	p.open()
	if err := p.repo.PublishRoot(t.Context(), rotated(p, nil), now); err != nil {
		t.Fatal(err)
	}
	trusted, err := p.refresh(url, cache, now)
	if err != nil {
		t.Fatal(err)
	}
	if trusted.Root().Version != 2 || trusted.TimestampVersion() != 2 {
		t.Errorf("root %d, timestamp %d, want 2 and 2", trusted.Root().Version, trusted.TimestampVersion())
	}
	p.add(patchTarget(1, "one", "CVE-1"), "one")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.refresh(url, cache, now); err != nil {
		t.Fatal(err)
	}
}

func TestNewTargetsKeys(t *testing.T) {
	p := newPortal(t)
	cache, url := p.cache(), p.serve()
	for i := range p.files.TargetsKeys {
		p.files.TargetsKeys[i] = filepath.Join(t.TempDir(), "key")
		if _, err := repo.CreateKey(p.files.TargetsKeys[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.repo.PublishRoot(t.Context(), rotated(p, nil), now); err != nil {
		t.Fatal(err)
	}
	p.add(patchTarget(1, "one", "CVE-1"), "one")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	trusted, err := p.refresh(url, cache, now)
	if err != nil || trusted.TargetsVersion() != 2 {
		t.Errorf("readers do not follow: %v", err)
	}
}

func TestInit(t *testing.T) {
	p := newPortal(t)
	if err := p.repo.Init(t.Context(), p.file(p.files.Root), p.targets, now); err != nil {
		t.Errorf("again: %v", err)
	}
	other := newPortal(t)
	if err := p.repo.Init(t.Context(), p.file(other.files.Root), p.targets, now); !errors.Is(err, repo.ErrPublished) {
		t.Errorf("another root: %v", err)
	}
	empty, err := repo.Open(t.TempDir(), repo.Online{})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Publish(t.Context(), p.targets, p.given, now); !errors.Is(err, repo.ErrPublished) {
		t.Errorf("publishing before Init: %v", err)
	}
	if err := empty.Close(); err != nil {
		t.Error(err)
	}
}

func TestCeremony(t *testing.T) {
	dir := t.TempDir() + "/keys"
	c := repo.Ceremony{RootKeys: 3, RootThreshold: 4, TargetsKeys: 2, TargetsThreshold: 2}
	if _, err := c.Run(t.Context(), dir, now); !errors.Is(err, repo.ErrSpec) {
		t.Errorf("4 of 3 keys: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused ceremony left something: %v", err)
	}
	c.RootThreshold = 2
	// An interrupted run left a key; it is used.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := repo.CreateKey(dir + "/root-2.key")
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Run(t.Context(), dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := repo.LoadKey(files.RootKeys[1]); err != nil || k.Public() != left.Public() {
		t.Errorf("the key of the interrupted run was replaced: %v", err)
	}
	if _, err := c.Run(t.Context(), dir, now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second ceremony in the folder: %v", err)
	}
}

func TestDirectorCeremony(t *testing.T) {
	files, err := repo.DirectorCeremony{RootKeys: 3, RootThreshold: 2}.Run(t.Context(), t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(files.Root)
	if err != nil {
		t.Fatal(err)
	}
	root, err := trust.ParseDirectorRoot(b, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	_, channel, err := repo.LoadChannelKey(files.Channel)
	if err != nil || !root.AllowsServer(hex.EncodeToString(channel)) {
		t.Errorf("the channel key is not in the root: %v", err)
	}
	k, err := repo.LoadKey(files.Director)
	if err != nil {
		t.Fatal(err)
	}
	m := trust.Manifest{SystemID: "s", KeyHash: strings.Repeat("0", 64), Counter: 1, Task: "t", Action: trust.Scan, Scanner: "x",
		Issued: now.Unix(), NotAfter: now.Unix() + 60}
	signed, err := repo.Sign(t.Context(), (&trust.Envelope{Signed: m.Value()}).Encode(), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.VerifyManifest(signed, root, trust.Identity{SystemID: "s", KeyHash: m.KeyHash}, 0, now); err != nil {
		t.Errorf("the director's manifest: %v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	path := t.TempDir() + "/key"
	k, err := repo.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.CreateKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was replaced: %v", err)
	}
	if again, err := repo.LoadKey(path); err != nil || again.Public() != k.Public() {
		t.Errorf("LoadKey: %v", err)
	}
	private := strings.Split(strings.Split(string(text), `"private": "`)[1], `"`)[0]
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(format, k), private[:16]) {
			t.Errorf("%s shows the private half", format)
		}
	}
	for name, content := range map[string]string{
		"empty":             "",
		"not JSON":          "key",
		"another type":      strings.Replace(string(text), "ed25519", "x25519", 1),
		"halves differ":     strings.Replace(string(text), private, strings.Repeat("0", 64), 1),
		"private too short": strings.Replace(string(text), private, private[2:], 1),
	} {
		bad := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := repo.LoadKey(bad)
		if !errors.Is(err, repo.ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), private) {
			t.Errorf("%s: the error shows the private half", name)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.LoadKey(path); !errors.Is(err, repo.ErrKeyFile) {
		t.Errorf("a key that the group may read: %v", err)
	}
}

func TestSignReplacesOwnSignature(t *testing.T) {
	p := newPortal(t)
	k := p.key(p.files.TargetsKeys[0])
	once, err := repo.Sign(t.Context(), p.targets, k)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.ParseEnvelope(once, trust.MaxTargets)
	if err != nil || len(e.Signatures) != 2 {
		t.Errorf("%d signatures, %v", len(e.Signatures), err)
	}
	if _, err := repo.AddTarget(p.file(p.files.Root), patchTarget(1, "x", "CVE-1"), now); !errors.Is(err, repo.ErrDocument) {
		t.Errorf("a target added to a root: %v", err)
	}
}
