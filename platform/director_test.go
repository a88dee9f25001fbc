package platform_test

import (
	"bytes"
	"testing"
	"time"

	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
	"livemend.dev/livemend/wire"
)

// Agents that trust an older director root find every newer one, which each
// start of the platform adds.
func TestDirectorRootsAreServed(t *testing.T) {
	var cfg *platform.Config
	p := platformtest.Start(t, storetest.SQLite(t), func(c *platform.Config) { cfg = c })
	m := enrolled(t, p, p.Admin, "web-01")
	old := p.Bundle.Director
	root := must[*repo.KeyFile](t)(repo.LoadKey(p.Files.RootKeys[0]))
	director := must[*repo.KeyFile](t)(repo.LoadKey(p.Files.Director))
	next := must[[]byte](t)(repo.NewDirectorRoot(repo.DirectorSpec{
		Version: old.Version + 1, Expires: time.Now().Add(24 * time.Hour),
		RootKeys: []trust.PublicKey{root.Public()}, RootThreshold: 1,
		DirectorKeys: []trust.PublicKey{director.Public()}, DirectorThreshold: 1, ChannelKeys: old.ChannelKeys,
	}))
	next = must[[]byte](t)(repo.Sign(t.Context(), next, root))
	m.HangUp()
	cfg.Bundle = must[*trust.Bundle](t)(trust.NewBundle(next, p.Bundle.PortalBytes, p.Bundle.ServerKeys, trust.Ed25519()))
	p.Restart()
	m.Start()
	for name, want := range map[string][]byte{"1.director-root.json": p.Bundle.DirectorBytes, "2.director-root.json": next} {
		got, err := m.Call(wire.Metadata, wire.Range{Path: name, Len: wire.MaxChunk}.Encode())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want the %d of the root", name, len(got), err, len(want))
		}
	}
}
