package portal

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/portaldb"
	"livemend.dev/livemend/wire"
)

// System is a registered server.
type System = portaldb.System

// flagClone marks a system whose machine-id another system of the customer has.
const flagClone = "clone-or-reinstall"

const channelKeySize = 32 // X25519

// Registration asks for a System ID: by a registration key (KeyID and KeyProof)
// or vouched for by the partner, who then names the customer.
type Registration struct {
	Customer      string
	KeyID         string
	Credential    string // vouched for: what the identity proof names; "" means the customer
	Facts         wire.Facts
	Challenge     []byte
	Handshake     []byte
	KeyProof      []byte
	IdentityKey   []byte
	ChannelKey    []byte
	IdentityProof []byte
}

// check refuses what cannot be a registration, before the database is asked.
func (r *Registration) check() error {
	for _, part := range [][]byte{r.Challenge, r.Handshake, r.KeyProof, r.IdentityProof} {
		if len(part) > maxProof {
			return refuse(Invalid, fmt.Sprintf("a challenge, handshake hash or proof has at most %d bytes", maxProof))
		}
	}
	if len(r.IdentityKey) != ed25519.PublicKeySize || len(r.ChannelKey) != channelKeySize {
		return refuse(Invalid, "an identity key (Ed25519) and a channel key (X25519) have 32 bytes each")
	}
	if len(r.Challenge) == 0 || len(r.Handshake) == 0 {
		return refuse(Invalid, "challenge and handshake hash are missing: without them a proof could be used again")
	}
	f := &r.Facts
	for _, text := range []string{
		r.Customer, r.KeyID, r.Credential, f.Hostname, f.MachineID, f.OS, f.OSVersion, f.Kernel, f.KernelID, f.Arch,
	} {
		if !validText(text, MaxName) {
			return refuse(Invalid, fmt.Sprintf("facts and ids have at most %d bytes and no control characters", MaxName))
		}
	}
	return nil
}

// named returns the credential that the proofs speak about.
func (r *Registration) named() string {
	switch {
	case r.KeyID != "":
		return r.KeyID
	case r.Credential != "":
		return r.Credential
	default:
		return r.Customer
	}
}

func (r *Registration) binding() enrol.Binding {
	return enrol.Binding{
		Challenge: r.Challenge, Handshake: r.Handshake, Credential: r.named(),
		IdentityKey: r.IdentityKey, ChannelKey: r.ChannelKey,
	}
}

// Register gives a server its System ID. The same identity key gets the same
// System ID again and uses no second licence. Another key on a known machine is
// a new system, flagged for a person to look at: nothing is taken over.
func (s *Service) Register(ctx context.Context, a Actor, r Registration) (System, error) {
	if err := a.may(ScopePartner); err != nil {
		return System{}, err
	}
	if err := r.check(); err != nil {
		return System{}, err
	}
	if enrol.Verify(r.IdentityKey, r.binding(), r.IdentityProof) != nil {
		return System{}, refuse(Invalid, "the identity proof does not fit the server's keys and this connection; nothing was registered, let the agent start its enrolment again")
	}
	var out System
	var reason string // why a key was refused: for the log, never for the caller
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		reason = ""
		system, why, err := s.register(ctx, tx, a, &r)
		out, reason = system, why
		if why != "" {
			return errKeyRefused
		}
		return err
	})
	if reason != "" {
		s.log.WarnContext(ctx, "registration key refused",
			slog.String("key", r.KeyID), slog.String("credential", a.credential), slog.String("reason", reason))
	}
	if err != nil {
		return System{}, err
	}
	return out, nil
}

// register does the work of Register inside its transaction. A reason means
// that the key is refused.
func (s *Service) register(ctx context.Context, tx *store.Tx, a Actor, r *Registration) (_ System, reason string, err error) {
	now := s.now()
	customer, full := r.Customer, false
	if r.KeyID != "" {
		key, reason, err := s.admittingKey(ctx, tx, a, r, now)
		if err != nil || reason != "" {
			return System{}, reason, err
		}
		customer, full = key.Customer, key.Servers >= key.ServerLimit
	} else if err := s.ownsCustomer(ctx, tx, a, customer); err != nil {
		return System{}, "", err
	}

	known, err := a.tenant.SystemByIdentity(ctx, tx, r.IdentityKey)
	switch {
	case err == nil && known.Customer != customer:
		return System{}, "", refuse(Conflict, "this server is registered for another customer; nothing was changed, remove it there first")
	case err == nil:
		fill(&known, r, now)
		if err := a.tenant.RefreshSystem(ctx, tx, known); err != nil {
			return System{}, "", fmt.Errorf("registering a system again: %w", err)
		}
		return known, "", s.record(ctx, tx, a, "renew.system", known.ID, known.Hostname)
	case !errors.Is(err, store.ErrNotFound):
		return System{}, "", fmt.Errorf("looking for a system: %w", err)
	case full:
		return System{}, "used up", nil
	}

	system := System{Customer: customer, Key: r.KeyID, IdentityKey: r.IdentityKey, Created: now}
	fill(&system, r, now)
	if system.MachineID != "" {
		clone, err := a.tenant.MachineKnown(ctx, tx, customer, system.MachineID)
		if err != nil {
			return System{}, "", fmt.Errorf("looking for a machine: %w", err)
		}
		if clone {
			system.Flags = flagClone
		}
	}
	err = insertNew("S-", systemChars, func(id string) (bool, error) {
		system.ID = id
		return a.tenant.AddSystem(ctx, tx, system)
	})
	if err != nil {
		return System{}, "", fmt.Errorf("registering a system: %w", err)
	}
	detail := strings.Join([]string{"by", r.named(), "for", customer}, " ")
	return system, "", s.record(ctx, tx, a, "register.system", system.ID, detail)
}

// admittingKey returns the registration key when it may register servers now
// and r proves knowledge of its secret. Otherwise it returns the reason.
func (s *Service) admittingKey(ctx context.Context, tx *store.Tx, a Actor, r *Registration, now time.Time) (Key, string, error) {
	key, err := a.tenant.Key(ctx, tx, r.KeyID)
	unknown := errors.Is(err, store.ErrNotFound)
	if err != nil && !unknown {
		return Key{}, "", fmt.Errorf("reading a key: %w", err)
	}
	if unknown {
		key.Public = s.nobody
	}
	proved := enrol.Verify(key.Public, r.binding(), r.KeyProof) == nil // always, so that the time tells nothing
	switch {
	case unknown:
		return Key{}, "unknown", nil
	case !proved:
		return Key{}, "wrong proof", nil
	case !key.Enabled:
		return Key{}, "disabled", nil
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return Key{}, "expired", nil
	case r.Customer != "" && r.Customer != key.Customer:
		return Key{}, "for another customer", nil
	}
	return key, "", nil
}

// fill takes over what a system says of itself.
func fill(s *System, r *Registration, now time.Time) {
	f := &r.Facts
	s.ChannelKey, s.Registered = r.ChannelKey, now
	s.Hostname, s.MachineID, s.OS, s.OSVersion = f.Hostname, f.MachineID, f.OS, f.OSVersion
	s.Kernel, s.KernelID, s.Arch = f.Kernel, f.KernelID, f.Arch
}

// Systems returns a customer's systems, oldest first.
func (s *Service) Systems(ctx context.Context, a Actor, customer string) ([]System, error) {
	if err := a.may(ScopePartner); err != nil {
		return nil, err
	}
	if err := s.ownsCustomer(ctx, s.db, a, customer); err != nil {
		return nil, err
	}
	return whole(a.tenant.Systems(ctx, s.db, customer))
}

// RemoveSystem forgets a system and frees its licence.
func (s *Service) RemoveSystem(ctx context.Context, a Actor, id string) error {
	return s.change(ctx, a, "remove.system", id, validSystemID, func(tx *store.Tx) (bool, error) {
		return a.tenant.DeleteSystem(ctx, tx, id)
	})
}
