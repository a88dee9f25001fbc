package repo_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

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
