package repo_test

import (
	"errors"
	"testing"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

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
