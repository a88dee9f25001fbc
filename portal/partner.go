package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/portaldb"
)

// Scope is what a credential is for.
type Scope string

// The scopes.
const (
	ScopePartner Scope = "partner" // customers, keys, systems
	ScopePublish Scope = "publish" // the vendor's own: releases
)

// A credential's text is lmpc1_ID_SECRET: a prefix that secret scanners find,
// an id for the record, 256 random bits.
const (
	credentialPrefix = "lmpc1"
	credentialSecret = 32
	maxCredential    = 128
)

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// Actor is who calls a use case: a partner, as a credential proved.
type Actor struct {
	tenant     portaldb.Tenant
	credential string
	scopes     []string
}

// Credential returns the public id of the actor's credential.
func (a Actor) Credential() string { return a.credential }

func (a Actor) may(scope Scope) error {
	if slices.Contains(a.scopes, string(scope)) {
		return nil
	}
	return refuse(Forbidden, "this credential is not for this kind of request; use one with the scope "+string(scope))
}

// Authenticate tells who has a credential.
func (s *Service) Authenticate(ctx context.Context, text string) (Actor, error) {
	refused := refuse(Unauthenticated, "the credential is missing or not known here; send it as a bearer token, exactly as it was shown")
	if len(text) > maxCredential {
		return Actor{}, refused
	}
	prefix, rest, _ := strings.Cut(text, "_")
	id, _, ok := strings.Cut(rest, "_")
	if prefix != credentialPrefix || !ok || len(id) != credentialChars || strings.Trim(id, alphabet) != "" {
		return Actor{}, refused
	}
	stored, err := portaldb.CredentialByID(ctx, s.db, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Actor{}, fmt.Errorf("reading a credential: %w", err)
	}
	sum := sha256.Sum256([]byte(text))
	if subtle.ConstantTimeCompare(sum[:], stored.Hash) != 1 {
		return Actor{}, refused
	}
	return Actor{tenant: portaldb.TenantOf(stored.Partner), credential: stored.ID, scopes: strings.Fields(stored.Scopes)}, nil
}

// AddPartner makes a credential with the given scope for the partner called
// name, which is made when it is new. The credential's text is returned this
// once: only its SHA-256 is stored. It is for the operator of the portal, at
// the machine itself.
func (s *Service) AddPartner(ctx context.Context, name string, scope Scope) (credential string, err error) {
	if name == "" || !validText(name, MaxName) {
		return "", refuse(Invalid, fmt.Sprintf("a partner's name has 1 to %d bytes and no control characters", MaxName))
	}
	secret := make([]byte, credentialSecret)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		partner, err := portaldb.PartnerByName(ctx, tx, name)
		if errors.Is(err, store.ErrNotFound) {
			partner = portaldb.Partner{Name: name, Created: s.now()}
			err = insertNew("P-", partnerChars, func(id string) (bool, error) {
				partner.ID = id
				return portaldb.AddPartner(ctx, tx, partner)
			})
		}
		if err != nil {
			return err
		}
		var id string
		err = insertNew("", credentialChars, func(drawn string) (bool, error) {
			id = drawn
			credential = credentialPrefix + "_" + id + "_" + encoding.EncodeToString(secret)
			sum := sha256.Sum256([]byte(credential))
			return portaldb.AddCredential(ctx, tx, portaldb.Credential{
				ID: id, Partner: partner.ID, Hash: sum[:], Scopes: string(scope), Created: s.now(),
			})
		})
		if err != nil {
			return err
		}
		operator := Actor{tenant: portaldb.TenantOf(partner.ID), credential: "operator"}
		return s.record(ctx, tx, operator, "create.credential", id, string(scope))
	})
	if err != nil {
		return "", fmt.Errorf("adding the partner: %w", err)
	}
	return credential, nil
}

// RevokeCredential makes a credential unknown at once. ID is the middle part
// of its text. It is for the operator of the portal.
func (s *Service) RevokeCredential(ctx context.Context, id string) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		gone, err := portaldb.DeleteCredential(ctx, tx, id)
		if errors.Is(err, store.ErrNotFound) {
			return refuse(NotFound, "no credential has this id; it is the part between the underscores of its text")
		}
		if err != nil {
			return fmt.Errorf("revoking a credential: %w", err)
		}
		operator := Actor{tenant: portaldb.TenantOf(gone.Partner), credential: "operator"}
		return s.record(ctx, tx, operator, "revoke.credential", id, gone.Scopes)
	})
}
