package portal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/portaltest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/wire"
)

func TestMain(m *testing.M) { os.Exit(storetest.Run(m)) }

// machine is an agent as the portal sees it.
type machine struct {
	identity ed25519.PrivateKey
	channel  []byte
	id       string
}

func newMachine(t testing.TB, id string) machine {
	t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return machine{identity: identity, channel: bytes.Repeat([]byte{9}, 32), id: id}
}

// by returns the registration of m with a registration key.
func (m machine) by(key enrol.Credential) portal.Registration {
	r, b := m.registration(key.ID())
	r.KeyID, r.KeyProof = key.ID(), key.Prove(b)
	return r
}

// vouched returns the registration of m for a customer, by a token.
func (m machine) vouched(customer, token string) portal.Registration {
	r, _ := m.registration(token)
	r.Customer, r.Credential = customer, token
	return r
}

func (m machine) registration(credential string) (portal.Registration, enrol.Binding) {
	b := enrol.Binding{
		Challenge: []byte("challenge"), Handshake: []byte("handshake"), Credential: credential,
		IdentityKey: m.identity.Public().(ed25519.PublicKey), ChannelKey: m.channel,
	}
	return portal.Registration{
		Facts:     wire.Facts{Hostname: "host-" + m.id, MachineID: m.id, OS: "debian", OSVersion: "12", Arch: "amd64"},
		Challenge: b.Challenge, Handshake: b.Handshake, IdentityKey: b.IdentityKey, ChannelKey: b.ChannelKey,
		IdentityProof: ed25519.Sign(m.identity, b.Bytes()),
	}, b
}

// tenant is a partner with one customer.
type tenant struct {
	actor    portal.Actor
	customer string
}

func newTenant(t *testing.T, p *portaltest.Portal, name string) tenant {
	t.Helper()
	actor := p.Actor(t, name, portal.ScopePartner)
	customer, err := p.Service.CreateCustomer(t.Context(), actor, name+"'s customer")
	if err != nil {
		t.Fatal(err)
	}
	return tenant{actor: actor, customer: customer.ID}
}

func (o tenant) key(t *testing.T, p *portaltest.Portal, want portal.NewKey) enrol.Credential {
	t.Helper()
	want.Customer = o.customer
	_, text, err := p.Service.CreateKey(t.Context(), o.actor, want)
	if err != nil {
		t.Fatal(err)
	}
	key, err := enrol.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (o tenant) register(t *testing.T, p *portaltest.Portal, r portal.Registration) portal.System {
	t.Helper()
	system, err := p.Service.Register(t.Context(), o.actor, r)
	if err != nil {
		t.Fatal(err)
	}
	return system
}

func kindOf(err error) portal.Kind {
	var refusal *portal.Error
	if errors.As(err, &refusal) {
		return refusal.Kind
	}
	return ""
}

func each(t *testing.T, f func(t *testing.T, p *portaltest.Portal)) {
	t.Helper()
	storetest.EachDSN(t, func(t *testing.T, dsn string) { f(t, portaltest.Start(t, dsn)) })
}

func TestRegisterByKey(t *testing.T) {
	each(t, func(t *testing.T, p *portaltest.Portal) {
		a := newTenant(t, p, "a")
		key := a.key(t, p, portal.NewKey{ServerLimit: 2, Note: "two servers"})
		first := newMachine(t, "m1")
		system := a.register(t, p, first.by(key))
		if !strings.HasPrefix(system.ID, "S-") || system.Customer != a.customer || system.Hostname != "host-m1" || system.Flags != "" {
			t.Errorf("registered %+v", system)
		}
		// The answer was lost: the agent asks again, from a new connection and after a rename.
		first.channel, first.id = bytes.Repeat([]byte{8}, 32), "m1-renamed"
		again := a.register(t, p, first.by(key))
		if again.ID != system.ID {
			t.Errorf("the same identity key got %s, then %s", system.ID, again.ID)
		}
		second := newMachine(t, "m2")
		a.register(t, p, second.by(key))
		if _, err := p.Service.Register(t.Context(), a.actor, newMachine(t, "m3").by(key)); kindOf(err) != portal.KeyRefused {
			t.Errorf("a third server with a key for two: %v", err)
		}
		if got := a.register(t, p, first.by(key)); got.ID != system.ID {
			t.Error("a used-up key no longer knows its own server")
		}
		keys, err := p.Service.Keys(t.Context(), a.actor, a.customer)
		if err != nil || len(keys) != 1 || keys[0].Servers != 2 || keys[0].Note != "two servers" {
			t.Errorf("keys = %+v, %v; want one with 2 servers", keys, err)
		}
		systems, err := p.Service.Systems(t.Context(), a.actor, a.customer)
		if err != nil || len(systems) != 2 || systems[0].Hostname != "host-m1-renamed" || systems[0].ChannelKey[0] != 8 {
			t.Errorf("systems = %+v, %v", systems, err)
		}
		// Removing one frees its licence.
		if err := p.Service.RemoveSystem(t.Context(), a.actor, system.ID); err != nil {
			t.Fatal(err)
		}
		if fresh := a.register(t, p, first.by(key)); fresh.ID == system.ID {
			t.Error("a removed system came back under its old id")
		}
	})
}

// TestRefusedKeysLookTheSame: whoever tries keys learns nothing but "no".
func TestRefusedKeysLookTheSame(t *testing.T) {
	each(t, func(t *testing.T, p *portaltest.Portal) {
		a, b := newTenant(t, p, "a"), newTenant(t, p, "b")
		many := portal.NewKey{ServerLimit: 10}
		good := a.key(t, p, many)
		unknown, err := enrol.Generate(enrol.Key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		disabled, deleted := a.key(t, p, many), a.key(t, p, many)
		if err := p.Service.SetKeyEnabled(t.Context(), a.actor, disabled.ID(), false); err != nil {
			t.Fatal(err)
		}
		if err := p.Service.DeleteKey(t.Context(), a.actor, deleted.ID()); err != nil {
			t.Fatal(err)
		}
		expired := a.key(t, p, portal.NewKey{ServerLimit: 10, Expires: p.Now().Add(time.Hour)})
		m := newMachine(t, "m")
		a.register(t, p, newMachine(t, "early").by(expired))
		p.Advance(time.Hour)

		usedUp := a.key(t, p, portal.NewKey{ServerLimit: 1})
		a.register(t, p, newMachine(t, "other").by(usedUp))
		wrongProof := m.by(good)
		wrongProof.KeyProof = m.by(unknown).KeyProof
		noProof := m.by(good)
		noProof.KeyProof = nil
		elsewhere := m.by(good)
		elsewhere.Customer = b.customer

		var want string
		for reason, r := range map[string]portal.Registration{
			"unknown": m.by(unknown), "disabled": m.by(disabled), "unknown (deleted)": m.by(deleted), "expired": m.by(expired),
			"unknown (of another partner)": m.by(b.key(t, p, many)), "used up": m.by(usedUp), "wrong proof": wrongProof,
			"wrong proof (none)": noProof, "for another customer": elsewhere,
		} {
			before := len(p.Log())
			_, err := p.Service.Register(t.Context(), a.actor, r)
			if kindOf(err) != portal.KeyRefused {
				t.Errorf("%s: %v, want a refused key", reason, err)
				continue
			}
			if want == "" {
				want = err.Error()
			}
			if err.Error() != want {
				t.Errorf("%s: the text differs: %v", reason, err)
			}
			if logged, _, _ := strings.Cut(reason, " ("); !strings.Contains(p.Log()[before:], logged) {
				t.Errorf("%s: the log does not say so: %s", reason, p.Log()[before:])
			}
		}
		if err := p.Service.SetKeyEnabled(t.Context(), a.actor, disabled.ID(), true); err != nil {
			t.Fatal(err)
		}
		a.register(t, p, m.by(disabled))
	})
}

func TestLimitHoldsWhenManyRegisterAtOnce(t *testing.T) {
	each(t, func(t *testing.T, p *portaltest.Portal) {
		const limit, tries = 3, 8
		a := newTenant(t, p, "a")
		key := a.key(t, p, portal.NewKey{ServerLimit: limit})
		errs := make([]error, tries)
		var all sync.WaitGroup
		for i := range tries {
			r := newMachine(t, string(rune('a'+i))).by(key)
			all.Go(func() { _, errs[i] = p.Service.Register(t.Context(), a.actor, r) })
		}
		all.Wait()
		admitted := 0
		for _, err := range errs {
			switch {
			case err == nil:
				admitted++
			case kindOf(err) != portal.KeyRefused:
				t.Error(err)
			}
		}
		if admitted != limit {
			t.Errorf("%d servers were admitted, want %d", admitted, limit)
		}
	})
}

func TestVouchedRegistration(t *testing.T) {
	each(t, func(t *testing.T, p *portaltest.Portal) {
		a := newTenant(t, p, "a")
		m := newMachine(t, "m")
		system := a.register(t, p, m.vouched(a.customer, "TOKEN12345"))
		bare := newMachine(t, "m2")
		if second := a.register(t, p, bare.vouched(a.customer, a.customer)); second.Flags != "" {
			t.Errorf("another machine is flagged: %+v", second)
		}

		if twin := a.register(t, p, newMachine(t, "m").vouched(a.customer, "T")); twin.ID == system.ID || twin.Flags != "clone-or-reinstall" {
			t.Errorf("another key on a known machine got %+v", twin)
		}
		for what, change := range map[string]func(*portal.Registration){
			"proof for another token":    func(r *portal.Registration) { r.Credential = "TOKEN99999" },
			"proof of another handshake": func(r *portal.Registration) { r.Handshake = []byte("other") },
			"another channel key":        func(r *portal.Registration) { r.ChannelKey = bytes.Repeat([]byte{7}, 32) },
			"another identity key":       func(r *portal.Registration) { r.IdentityKey = bytes.Repeat([]byte{7}, 32) },
			"short identity key":         func(r *portal.Registration) { r.IdentityKey = r.IdentityKey[:31] },
			"no channel key":             func(r *portal.Registration) { r.ChannelKey = nil },
			"no challenge":               func(r *portal.Registration) { r.Challenge = nil },
			"huge challenge":             func(r *portal.Registration) { r.Challenge = make([]byte, 1<<20) },
			"NUL in the host name":       func(r *portal.Registration) { r.Facts.Hostname = "a\x00b" },
			"broken UTF-8":               func(r *portal.Registration) { r.Facts.Kernel = "\xff" },
			"endless host name":          func(r *portal.Registration) { r.Facts.Hostname = strings.Repeat("x", 201) },
		} {
			r := newMachine(t, "x").vouched(a.customer, "TOKEN12345")
			change(&r)
			if _, err := p.Service.Register(t.Context(), a.actor, r); kindOf(err) != portal.Invalid {
				t.Errorf("%s: %v, want invalid", what, err)
			}
		}
		if _, err := p.Service.Register(t.Context(), a.actor, m.vouched("C-NOBODY00", "T")); kindOf(err) != portal.NotFound {
			t.Errorf("unknown customer: %v", err)
		}
		second, err := p.Service.CreateCustomer(t.Context(), a.actor, "second")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Service.Register(t.Context(), a.actor, m.vouched(second.ID, "T")); kindOf(err) != portal.Conflict {
			t.Errorf("the same server for another customer: %v", err)
		}
		// The same machine at another partner is that partner's own business.
		b := newTenant(t, p, "b")
		if other := b.register(t, p, m.vouched(b.customer, "T")); other.ID == system.ID || other.Flags != "" {
			t.Errorf("at another partner: %+v", other)
		}
	})
}

func TestNewKeyRules(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	a := newTenant(t, p, "a")
	for what, bad := range map[string]portal.NewKey{
		"no server":      {Customer: a.customer},
		"too many":       {Customer: a.customer, ServerLimit: portal.MaxServers + 1},
		"expired":        {Customer: a.customer, ServerLimit: 1, Expires: p.Now()},
		"line in a note": {Customer: a.customer, ServerLimit: 1, Note: "a\nb"},
	} {
		if _, _, err := p.Service.CreateKey(t.Context(), a.actor, bad); kindOf(err) != portal.Invalid {
			t.Errorf("%s: %v, want invalid", what, err)
		}
	}
	for _, name := range []string{"", "a\x00", strings.Repeat("x", 201)} {
		if _, err := p.Service.CreateCustomer(t.Context(), a.actor, name); kindOf(err) != portal.Invalid {
			t.Errorf("customer %q: %v, want invalid", name, err)
		}
	}
}

func TestNoSecretIsStored(t *testing.T) {
	dsn := storetest.SQLite(t)
	p := portaltest.Start(t, dsn)
	credential := p.Credential(t, "a", portal.ScopePartner)
	a := newTenant(t, p, "a")
	key := a.key(t, p, portal.NewKey{ServerLimit: 1})
	a.register(t, p, newMachine(t, "m").by(key))
	folder := filepath.Dir(strings.TrimPrefix(dsn, "sqlite:"))
	var stored []byte
	for _, name := range []string{"test.db", "test.db-wal"} {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, content...)
	}
	if !bytes.Contains(stored, []byte(key.ID())) {
		t.Fatal("the key's id is not in the files: the test looks at the wrong ones")
	}
	for what, text := range map[string]string{"registration key": key.Text(), "credential": credential} {
		if secret := strings.Split(text, "_")[2]; bytes.Contains(stored, []byte(secret)) || strings.Contains(p.Log(), secret) {
			t.Errorf("the %s's secret is in the database or the log", what)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	p := portaltest.Start(t, storetest.SQLite(t))
	good := p.Credential(t, "a", portal.ScopePartner)
	other := p.Credential(t, "a", portal.ScopePartner)
	goodParts, otherParts := strings.Split(good, "_"), strings.Split(other, "_")
	for _, bad := range []string{
		"", "_", "__", good + "A", good[:len(good)-1], strings.ToLower(good), " " + good, strings.Repeat("x", 1<<16),
		"lmpc1_" + goodParts[1] + "_" + otherParts[2], "lmpc1_0000000000_" + goodParts[2], "lmpc1_00000'0000_" + goodParts[2],
	} {
		if _, err := p.Service.Authenticate(t.Context(), bad); kindOf(err) != portal.Unauthenticated {
			t.Errorf("%.80q: %v, want unauthenticated", bad, err)
		}
	}
	for _, text := range []string{good, other} {
		if _, err := p.Service.Authenticate(t.Context(), text); err != nil {
			t.Error(err)
		}
	}
	if err := p.Service.RevokeCredential(t.Context(), goodParts[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Service.Authenticate(t.Context(), good); kindOf(err) != portal.Unauthenticated {
		t.Errorf("a revoked credential: %v", err)
	}
	if _, err := p.Service.Authenticate(t.Context(), other); err != nil {
		t.Errorf("the partner's other credential: %v", err)
	}
	if err := p.Service.RevokeCredential(t.Context(), goodParts[1]); kindOf(err) != portal.NotFound {
		t.Errorf("revoked again: %v", err)
	}
}
