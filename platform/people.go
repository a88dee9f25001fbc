package platform

import (
	"context"
	"crypto/rand"
	"math"
	"strconv"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
)

// Users lists the accounts.
func (s *Service) Users(ctx context.Context, who access.Subject) ([]User, error) {
	if err := who.Require(access.Admin); err != nil {
		return nil, err
	}
	rows, err := platformdb.Users(ctx, s.db, who.Organisation)
	if err != nil {
		return nil, err
	}
	out := make([]User, len(rows))
	for i, u := range rows {
		out[i] = showUser(u)
	}
	return out, nil
}

func showUser(u platformdb.User) User {
	return User{ID: u.ID, Name: u.Name, Role: string(u.Role), MustChange: u.MustChange, Disabled: u.Disabled, CreatedAt: u.CreatedAt, SignedInAt: u.SignedInAt}
}

// CreateUser makes an account with a one-time password.
func (s *Service) CreateUser(ctx context.Context, who access.Subject, in NewUser) (CreatedUser, error) {
	if err := who.Require(access.Admin); err != nil {
		return CreatedUser{}, err
	}
	var out CreatedUser
	user, password, err := s.newUser(who.Organisation, in)
	if err != nil {
		return out, err
	}
	out = CreatedUser{User: showUser(user), OneTimePassword: password}
	return out, s.deed(ctx, who, "create.user", user.ID, "created account "+user.Name+" with role "+in.Role, "", func(tx *store.Tx) error {
		return insertUser(ctx, tx, user)
	})
}

func (s *Service) newUser(org string, in NewUser) (platformdb.User, string, error) {
	name, err := checkName(userName(in.Name))
	if err != nil {
		return platformdb.User{}, "", err
	}
	role := access.Role(in.Role)
	if len(name) > maxUserName || !role.Valid() {
		return platformdb.User{}, "", problem(ErrInput, "An account has a name of at most %d bytes and the role viewer, operator or admin. Nothing was changed.", maxUserName)
	}
	password, hash, err := oneTimePassword()
	return platformdb.User{ID: newID("U"), Organisation: org, Name: name, Role: role, PasswordHash: hash, MustChange: true, CreatedAt: s.now()}, password, err
}

func insertUser(ctx context.Context, tx *store.Tx, user platformdb.User) error {
	ok, err := platformdb.InsertUser(ctx, tx, user)
	if err == nil && !ok {
		return problem(ErrConflict, "The name %s is taken. Nothing was changed; choose another.", user.Name)
	}
	return err
}

// SetUserDisabled closes or opens an account; closing ends its sessions. Nobody
// can close their own.
func (s *Service) SetUserDisabled(ctx context.Context, who access.Subject, id string, disabled bool) error {
	if err := who.Require(access.Admin); err != nil {
		return err
	}
	if id == who.UserID {
		return problem(ErrConflict, "You cannot close your own account. Nothing was changed; ask another administrator.")
	}
	text := map[bool]string{true: "closed an account", false: "opened an account"}[disabled]
	return s.deed(ctx, who, "change.user", id, text, "", func(tx *store.Tx) error {
		found, err := platformdb.SetUserDisabled(ctx, tx, who.Organisation, id, disabled)
		switch {
		case err != nil:
			return err
		case !found:
			return missing(store.ErrNotFound, "account")
		case disabled:
			return platformdb.DeleteSessions(ctx, tx, id)
		}
		return nil
	})
}

// ResetPassword gives an account a new one-time password, ends its sessions and
// returns the password, which is shown this once.
func (s *Service) ResetPassword(ctx context.Context, who access.Subject, id string) (CreatedUser, error) {
	if err := who.Require(access.Admin); err != nil {
		return CreatedUser{}, err
	}
	user, err := platformdb.UserByID(ctx, s.db, who.Organisation, id)
	if err != nil {
		return CreatedUser{}, missing(err, "account")
	}
	return resetPassword(ctx, s.db, s.now(), who.Name, user)
}

// ResetPasswordOf is ResetPassword by the platform's operator, for the
// administrator who lost theirs. It needs no running platform.
func ResetPasswordOf(ctx context.Context, db *store.DB, name string) (CreatedUser, error) {
	user, err := platformdb.UserByName(ctx, db, userName(name))
	if err != nil {
		return CreatedUser{}, missing(err, "account")
	}
	return resetPassword(ctx, db, time.Now().UTC(), "operator", user)
}

func resetPassword(ctx context.Context, db *store.DB, now time.Time, actor string, user platformdb.User) (CreatedUser, error) {
	password, hash, err := oneTimePassword()
	if err != nil {
		return CreatedUser{}, err
	}
	user.PasswordHash, user.MustChange = hash, true
	err = db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.SetPassword(ctx, tx, user.Organisation, user.ID, hash, true); err != nil {
			return err
		}
		if err := platformdb.DeleteSessions(ctx, tx, user.ID); err != nil {
			return err
		}
		return platformdb.AddAudit(ctx, tx, user.Organisation, audit.Entry{At: now, Actor: actor, Action: "reset.password", Object: user.ID,
			Detail: "gave " + user.Name + " a new one-time password"})
	})
	return CreatedUser{User: showUser(user), OneTimePassword: password}, err
}

// oneTimePassword makes a password and its hash.
func oneTimePassword() (password, hash string, err error) {
	if password, err = access.OneTimePassword(rand.Reader); err != nil {
		return "", "", err
	}
	hash, err = access.HashPassword(password, rand.Reader)
	return password, hash, err
}

// APITokens lists the credentials of programs.
func (s *Service) APITokens(ctx context.Context, who access.Subject) ([]APIToken, error) {
	if err := who.Require(access.Admin); err != nil {
		return nil, err
	}
	rows, err := platformdb.APITokens(ctx, s.db, who.Organisation)
	if err != nil {
		return nil, err
	}
	out := make([]APIToken, len(rows))
	for i, t := range rows {
		out[i] = showToken(t)
	}
	return out, nil
}

func showToken(t platformdb.APIToken) APIToken {
	return APIToken{ID: t.ID, Name: t.Name, Role: string(t.Role), CreatedBy: t.CreatedBy, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, UsedAt: t.UsedAt}
}

// CreateAPIToken makes a credential for a program.
func (s *Service) CreateAPIToken(ctx context.Context, who access.Subject, in NewAPIToken) (CreatedAPIToken, error) {
	if err := who.Require(access.Admin); err != nil {
		return CreatedAPIToken{}, err
	}
	name, err := checkName(in.Name)
	if err != nil {
		return CreatedAPIToken{}, err
	}
	role := access.Role(in.Role)
	if !role.Valid() || !in.ExpiresAt.IsZero() && !in.ExpiresAt.After(s.now()) {
		return CreatedAPIToken{}, problem(ErrInput, "A token has the role viewer, operator or admin and ends in the future or never. Nothing was changed.")
	}
	text, err := access.NewToken(rand.Reader)
	if err != nil {
		return CreatedAPIToken{}, err
	}
	token := platformdb.APIToken{ID: newID("A"), Organisation: who.Organisation, Name: name, Role: role, Hash: access.HashSecret(text),
		CreatedBy: who.Name, CreatedAt: s.now(), ExpiresAt: in.ExpiresAt}
	return CreatedAPIToken{APIToken: showToken(token), Text: text},
		s.deed(ctx, who, "create.api-token", token.ID, "created API token "+name+" with role "+in.Role, "", func(tx *store.Tx) error {
			return platformdb.InsertAPIToken(ctx, tx, token)
		})
}

// DeleteAPIToken revokes a credential.
func (s *Service) DeleteAPIToken(ctx context.Context, who access.Subject, id string) error {
	if err := who.Require(access.Admin); err != nil {
		return err
	}
	return s.deed(ctx, who, "delete.api-token", id, "revoked an API token", "", func(tx *store.Tx) error {
		found, err := platformdb.DeleteAPIToken(ctx, tx, who.Organisation, id)
		if err == nil && !found {
			return missing(store.ErrNotFound, "API token")
		}
		return err
	})
}

// Audit lists who did what, newest first.
func (s *Service) Audit(ctx context.Context, who access.Subject, list List) (fleet.Page[audit.Entry], error) {
	var page fleet.Page[audit.Entry]
	if err := who.Require(access.Admin); err != nil {
		return page, err
	}
	before, err := numberAfter(list.After, math.MaxInt64)
	if err != nil {
		return page, err
	}
	limit := pageLimit(list.Limit)
	page.Items, page.Total, err = platformdb.Audit(ctx, s.db, who.Organisation, before, limit+1)
	if len(page.Items) > limit { // the one too many says only that there is a next page
		page.Items = page.Items[:limit]
		page.Next = strconv.FormatInt(page.Items[limit-1].ID, 10)
	}
	return page, err
}

// numberAfter reads the Next of a list in order of numbers; empty = none.
func numberAfter(after string, none int64) (int64, error) {
	if after == "" {
		return none, nil
	}
	n, err := strconv.ParseInt(after, 10, 64)
	if err != nil || n < 0 {
		return 0, problem(ErrInput, "The place to continue the list from is not valid. Start from the first page.")
	}
	return n, nil
}

// Settings returns what the platform knows of itself.
func (s *Service) Settings(ctx context.Context, who access.Subject) (Settings, error) {
	if err := who.Require(access.Viewer); err != nil {
		return Settings{}, err
	}
	org, err := platformdb.Organisation(ctx, s.db, who.Organisation)
	if err != nil {
		return Settings{}, err
	}
	out := Settings{Organisation: org, PortalURL: s.cfg.PortalURL, PublicURL: s.cfg.PublicURL, TrustDigest: s.cfg.Bundle.Digest(),
		Engine: string(s.db.Engine()), BothInOne: s.cfg.BothInOne, Silence: s.cfg.Silence}
	if len(s.cfg.CheckCommand) > 0 {
		out.CheckCommand = s.cfg.CheckCommand[0]
	}
	return out, nil
}

// FirstStart is what the first start made.
type FirstStart struct {
	Organisation    fleet.Organisation
	Administrator   string
	OneTimePassword string // shown this once
}

// SetUp makes the first organisation, linked to a new customer at the portal,
// and its administrator. It returns nil when there is an account already.
func (s *Service) SetUp(ctx context.Context, organisation, administrator string) (*FirstStart, error) {
	if n, err := platformdb.CountUsers(ctx, s.db); err != nil || n > 0 {
		return nil, err
	}
	return s.CreateOrganisation(ctx, organisation, administrator)
}

// CreateOrganisation makes an organisation, linked to a new customer at the
// portal, and its administrator. It is for the platform's operator, not for
// people of an organisation.
func (s *Service) CreateOrganisation(ctx context.Context, organisation, administrator string) (*FirstStart, error) {
	name, err := checkName(organisation)
	if err != nil {
		return nil, err
	}
	limited, stop := context.WithTimeout(ctx, portalTime)
	defer stop()
	customer, err := s.portal.CreateCustomer(limited, name)
	if err != nil {
		return nil, portalProblem(err, "make the customer of the organisation")
	}
	org := fleet.Organisation{ID: newID("O"), Name: name, CustomerID: customer.ID, CreatedAt: s.now()}
	user, password, err := s.newUser(org.ID, NewUser{Name: administrator, Role: string(access.Admin)})
	if err != nil {
		return nil, err
	}
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.InsertOrganisation(ctx, tx, org); err != nil {
			return err
		}
		if err := insertUser(ctx, tx, user); err != nil {
			return err
		}
		return s.audited(ctx, tx, systemSubject(org.ID), "create.organisation", org.ID, "customer "+org.CustomerID+", administrator "+user.Name)
	})
	if err != nil {
		return nil, err
	}
	return &FirstStart{Organisation: org, Administrator: user.Name, OneTimePassword: password}, nil
}
