package agent_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"livemend.dev/livemend/agent/enrolment"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/trust/repo"
	"livemend.dev/livemend/wire"
)

// Roots that an enrolment with another platform left, when it was interrupted,
// must not be believed after an enrolment that succeeded.
func TestInterruptedEnrolmentLeavesNoTrust(t *testing.T) {
	other, p, s := newPlatform(t), newPlatform(t), newSample(t)
	p.publishSample(s, 1)
	proc := s.start()
	a := newAgent(t, p)
	if err := a.store.SetTrusted(state.Bundle, other.bundle.Encode()); err != nil {
		t.Fatal(err)
	}
	if err := a.store.SetTrusted(state.DirectorRoot, other.bundle.DirectorBytes); err != nil {
		t.Fatal(err)
	}
	cache := must[*client.Folder](t)(client.OpenFolder(a.store.RepositoryDir()))
	if err := client.Pin(cache, other.bundle.PortalBytes, trust.Ed25519()); err != nil {
		t.Fatal(err)
	}
	a.enrol()
	a.start()
	p.work <- p.patchOrder(s, 1, trust.Apply, nil)
	wantOutcome(t, p.report(), wire.Done, "")
	proc.expect("fixed at level 1")
}

// A system stays the same when its platform has a new director root, followed
// by the running agent or met at the next enrolment first.
func TestDirectorRootRotation(t *testing.T) {
	for name, running := range map[string]bool{"running agent": true, "enrolment": false} {
		t.Run(name, func(t *testing.T) {
			p, s := newPlatform(t), newSample(t)
			p.publishSample(s, 1)
			proc := s.start()
			a := newAgent(t, p)
			first := a.enrol()
			second := p.rotateDirector()
			if running {
				p.lie = func(name string, b []byte) []byte {
					if name == "2.director-root.json" {
						return second
					}
					return b
				}
			} else if again := a.enrol(); again != first {
				t.Errorf("enrolled as %v, then as %v", first, again)
			}
			a.start()
			p.work <- p.patchOrder(s, 1, trust.Apply, nil)
			wantOutcome(t, p.report(), wire.Done, "")
			proc.expect("fixed at level 1")
			if running { // and enrolling again is no other platform
				a.stop()
				ctx, stop := context.WithTimeout(t.Context(), limit)
				defer stop()
				if _, err := enrolment.Run(ctx, a.store, inventory.New(), a.request()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// rotateDirector gives the director another key and returns the new root, which
// is in the bundle from now on.
func (p *otherEnd) rotateDirector() []byte {
	p.t.Helper()
	root := p.key(p.directorDir.RootKeys[0])
	director := must[*repo.KeyFile](p.t)(repo.CreateKey(filepath.Join(p.t.TempDir(), "director.key")))
	b := must[[]byte](p.t)(repo.NewDirectorRoot(repo.DirectorSpec{
		Version: p.bundle.Director.Version + 1, Expires: time.Now().Add(24 * time.Hour),
		RootKeys: []trust.PublicKey{root.Public()}, RootThreshold: 1,
		DirectorKeys: []trust.PublicKey{director.Public()}, DirectorThreshold: 1,
		ChannelKeys: p.bundle.Director.ChannelKeys,
	}))
	b = must[[]byte](p.t)(repo.Sign(p.t.Context(), b, root))
	p.director = director
	p.bundle = must[*trust.Bundle](p.t)(trust.NewBundle(b, p.bundle.PortalBytes, p.bundle.ServerKeys, trust.Ed25519()))
	return b
}
