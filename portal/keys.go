package portal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/portaldb"
)

// Customer is one of a partner's customers.
type Customer = portaldb.Customer

// Key is a registration key without its secret.
type Key = portaldb.Key

// NewKey says what a registration key is to be.
type NewKey struct {
	Customer    string // its ID
	Note        string // for people
	ServerLimit int64  // how many servers may register with it
	Expires     time.Time
}

// CreateCustomer makes a customer of the actor's.
func (s *Service) CreateCustomer(ctx context.Context, a Actor, name string) (Customer, error) {
	if err := a.may(ScopePartner); err != nil {
		return Customer{}, err
	}
	if name == "" || !validText(name, MaxName) {
		return Customer{}, refuse(Invalid, fmt.Sprintf("a customer's name has 1 to %d bytes and no control characters", MaxName))
	}
	customer := Customer{Name: name, Created: s.now()}
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		err := insertNew("C-", customerChars, func(id string) (bool, error) {
			customer.ID = id
			return a.tenant.AddCustomer(ctx, tx, customer)
		})
		if err != nil {
			return err
		}
		return s.record(ctx, tx, a, "create.customer", customer.ID, name)
	})
	if err != nil {
		return Customer{}, fmt.Errorf("creating a customer: %w", err)
	}
	return customer, nil
}

// Customers returns the actor's customers, oldest first.
func (s *Service) Customers(ctx context.Context, a Actor) ([]Customer, error) {
	if err := a.may(ScopePartner); err != nil {
		return nil, err
	}
	return whole(a.tenant.Customers(ctx, s.db))
}

// CreateKey makes a registration key for a customer and returns it with its
// text, which nobody can show again: only the public half is stored.
func (s *Service) CreateKey(ctx context.Context, a Actor, want NewKey) (Key, string, error) {
	if err := a.may(ScopePartner); err != nil {
		return Key{}, "", err
	}
	switch {
	case want.ServerLimit < 1 || want.ServerLimit > MaxServers:
		return Key{}, "", refuse(Invalid, fmt.Sprintf("a key registers between 1 and %d servers", MaxServers))
	case !validText(want.Note, MaxName):
		return Key{}, "", refuse(Invalid, fmt.Sprintf("a note has at most %d bytes and no control characters", MaxName))
	case !want.Expires.IsZero() && !want.Expires.After(s.now()):
		return Key{}, "", refuse(Invalid, "the key would have expired already; name a later time or none")
	}
	var key Key
	var text string
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := s.ownsCustomer(ctx, tx, a, want.Customer); err != nil {
			return err
		}
		secret, err := newKey()
		if err != nil {
			return err
		}
		text = secret.Text()
		key = Key{
			ID: secret.ID(), Customer: want.Customer, Public: secret.Public(), Note: want.Note,
			ServerLimit: want.ServerLimit, Expires: want.Expires, Enabled: true, Created: s.now(),
		}
		added, err := a.tenant.AddKey(ctx, tx, key)
		if err != nil {
			return err
		}
		if !added {
			return errors.New("a random id of 50 bits was drawn twice")
		}
		return s.record(ctx, tx, a, "create.key", key.ID, "for "+key.Customer)
	})
	if err != nil {
		return Key{}, "", fmt.Errorf("creating a key: %w", err)
	}
	return key, text, nil
}

// Keys returns a customer's registration keys, oldest first.
func (s *Service) Keys(ctx context.Context, a Actor, customer string) ([]Key, error) {
	if err := a.may(ScopePartner); err != nil {
		return nil, err
	}
	if err := s.ownsCustomer(ctx, s.db, a, customer); err != nil {
		return nil, err
	}
	return whole(a.tenant.Keys(ctx, s.db, customer))
}

// whole refuses a list that would lack some: a caller might take it for all.
func whole[T any](list []T, err error) ([]T, error) {
	if errors.Is(err, portaldb.ErrMany) {
		return nil, refuse(Conflict, fmt.Sprintf("there are more than %d; nothing was left out silently, ask the vendor for an export", portaldb.MaxList))
	}
	return list, err
}

// SetKeyEnabled lets a key register servers, or stops it.
func (s *Service) SetKeyEnabled(ctx context.Context, a Actor, id string, enabled bool) error {
	action := "disable.key"
	if enabled {
		action = "enable.key"
	}
	return s.change(ctx, a, action, id, validKeyID, func(tx *store.Tx) (bool, error) {
		return a.tenant.SetKeyEnabled(ctx, tx, id, enabled)
	})
}

// DeleteKey removes a key. Systems that registered with it stay.
func (s *Service) DeleteKey(ctx context.Context, a Actor, id string) error {
	return s.change(ctx, a, "delete.key", id, validKeyID, func(tx *store.Tx) (bool, error) {
		return a.tenant.DeleteKey(ctx, tx, id)
	})
}

// change does one recorded deed to one object of the actor's.
func (s *Service) change(ctx context.Context, a Actor, action, id string, valid func(string) bool, do func(*store.Tx) (bool, error)) error {
	if err := a.may(ScopePartner); err != nil {
		return err
	}
	if !valid(id) {
		return errNotFound
	}
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		done, err := do(tx)
		if err != nil {
			return fmt.Errorf("%s: %w", action, err)
		}
		if !done {
			return errNotFound
		}
		return s.record(ctx, tx, a, action, id, "")
	})
}

func (s *Service) ownsCustomer(ctx context.Context, q store.Querier, a Actor, id string) error {
	if !validText(id, MaxName) {
		return errNotFound
	}
	_, err := a.tenant.Customer(ctx, q, id)
	if errors.Is(err, store.ErrNotFound) {
		return errNotFound
	}
	return err
}

func validKeyID(id string) bool { return enrol.ValidID(id) }

func validSystemID(id string) bool { return validText(id, MaxName) }
