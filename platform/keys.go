package platform

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/packaging"
	portal "livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
)

// Times of enrolment.
const (
	tokenLife  = 24 * time.Hour   // a one-use token waits for its machine
	portalTime = 30 * time.Second // one request to the portal
)

// portalProblem turns what the portal said, or that it said nothing, into a
// Problem.
func portalProblem(err error, what string) error {
	var refusal *portal.Error
	if errors.As(err, &refusal) {
		return &Problem{Err: fmt.Errorf("%w: %w", ErrPortal, err), Text: fmt.Sprintf("The portal did not %s: %s. Nothing was changed here.", what, refusal.Detail)}
	}
	return &Problem{Err: fmt.Errorf("%w: %w", ErrPortal, err), Text: fmt.Sprintf("The portal could not be reached to %s. Nothing was changed here; try again when it can.", what)}
}

// CreateKey is "Create a Key for LivePatching": the portal makes the key, the
// platform keeps it encrypted, the caller sees it once.
func (s *Service) CreateKey(ctx context.Context, who access.Subject, in NewKey) (CreatedKey, error) {
	if err := who.Require(access.Admin); err != nil {
		return CreatedKey{}, err
	}
	note, err := checkNote(in.Note)
	if err != nil {
		return CreatedKey{}, err
	}
	limit := in.ServerLimit
	switch {
	case limit < 0 || limit > portal.MaxServers || !in.ExpiresAt.IsZero() && !in.ExpiresAt.After(s.now()):
		return CreatedKey{}, problem(ErrInput, "A key is for at most %d servers and ends in the future or never. Nothing was changed.", portal.MaxServers)
	case limit == 0:
		limit = portal.MaxServers
	}
	org, err := platformdb.Organisation(ctx, s.db, who.Organisation)
	if err != nil {
		return CreatedKey{}, err
	}
	limited, stop := context.WithTimeout(ctx, portalTime)
	defer stop()
	made, err := s.portal.CreateKey(limited, portal.NewKey{CustomerID: org.CustomerID, Note: note, ServerLimit: limit, ExpiresAt: in.ExpiresAt})
	if err != nil {
		return CreatedKey{}, portalProblem(err, "make the key")
	}
	key := fleet.Key{ID: made.ID, Note: note, ServerLimit: in.ServerLimit, ExpiresAt: in.ExpiresAt, Enabled: true, CreatedBy: who.Name, CreatedAt: s.now()}
	err = s.deed(ctx, who, "create.key", key.ID, "created registration key "+key.ID, "enrolment", func(tx *store.Tx) error {
		return platformdb.InsertKey(ctx, tx, who.Organisation, key, s.vault.seal(who.Organisation, key.ID, made.Text))
	})
	if err != nil {
		// Nobody has seen the key: it must not stay valid.
		if gone := s.portal.DeleteKey(context.WithoutCancel(ctx), made.ID); gone != nil {
			s.log.ErrorContext(ctx, "a key that could not be stored is still at the portal", "key", made.ID, "error", gone)
		}
		return CreatedKey{}, err
	}
	return CreatedKey{Key: key, Text: made.Text}, nil
}

// Keys lists the organisation's registration keys, newest first.
func (s *Service) Keys(ctx context.Context, who access.Subject) ([]fleet.Key, error) {
	if err := who.Require(access.Viewer); err != nil {
		return nil, err
	}
	keys, err := platformdb.Keys(ctx, s.db, who.Organisation)
	if err != nil {
		return nil, err
	}
	used, err := platformdb.CountVia(ctx, s.db, who.Organisation)
	for i := range keys {
		keys[i].Servers = used[viaKey(keys[i].ID)]
	}
	return keys, err
}

func viaKey(id string) string { return "key " + id }

// SetKeyEnabled lets a key enrol servers, or stops it. Enrolled servers stay.
func (s *Service) SetKeyEnabled(ctx context.Context, who access.Subject, id string, enabled bool) error {
	return s.changeKey(ctx, who, id, map[bool]string{true: "enabled", false: "disabled"}[enabled],
		func(ctx context.Context) error { return s.portal.SetKeyEnabled(ctx, id, enabled) },
		func(tx *store.Tx) error { return platformdb.SetKeyEnabled(ctx, tx, who.Organisation, id, enabled) })
}

// DeleteKey removes a key here and at the portal. Enrolled servers stay.
func (s *Service) DeleteKey(ctx context.Context, who access.Subject, id string) error {
	gone := func(ctx context.Context) error {
		err := s.portal.DeleteKey(ctx, id)
		var refusal *portal.Error
		if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
			return nil
		}
		return err
	}
	return s.changeKey(ctx, who, id, "deleted", gone,
		func(tx *store.Tx) error { return platformdb.DeleteKey(ctx, tx, who.Organisation, id) })
}

// changeKey changes a key at the portal first: it is the one that decides.
func (s *Service) changeKey(ctx context.Context, who access.Subject, id, what string, there func(context.Context) error, here func(*store.Tx) error) error {
	if err := who.Require(access.Admin); err != nil {
		return err
	}
	if _, err := platformdb.KeyByID(ctx, s.db, who.Organisation, id); err != nil {
		return missing(err, "registration key")
	}
	limited, stop := context.WithTimeout(ctx, portalTime)
	defer stop()
	if err := there(limited); err != nil {
		return portalProblem(err, "change the key")
	}
	return s.deed(ctx, who, "change.key", id, what+" registration key "+id, "enrolment", here)
}

// ActivateLivePatching is "Activate LivePatching": it retrieves and decrypts a
// key and returns the install command that carries it. Empty keyID = the newest
// enabled key.
func (s *Service) ActivateLivePatching(ctx context.Context, who access.Subject, keyID string) (Install, error) {
	if err := who.Require(access.Operator); err != nil {
		return Install{}, err
	}
	keys, err := platformdb.Keys(ctx, s.db, who.Organisation)
	if err != nil {
		return Install{}, err
	}
	i := slices.IndexFunc(keys, func(k fleet.Key) bool {
		return (keyID == "" || k.ID == keyID) && k.Enabled && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(s.now()))
	})
	if i < 0 {
		return Install{}, problem(ErrNotFound, "There is no such key that is enabled and has not expired. Nothing was changed; use Create a Key for LivePatching.")
	}
	sealed, err := platformdb.SealedKey(ctx, s.db, who.Organisation, keys[i].ID)
	if err != nil {
		return Install{}, missing(err, "registration key")
	}
	text, err := s.vault.open(who.Organisation, keys[i].ID, sealed)
	if err != nil {
		return Install{}, err
	}
	out, err := s.install(ctx, who.Organisation)
	if err != nil {
		return Install{}, err
	}
	out.Scenario, out.KeyID, out.Key = ByKey, keys[i].ID, text
	out.Command = s.command("LIVEMEND_KEY=" + text)
	return out, s.deed(ctx, who, "activate.livepatching", out.KeyID, "retrieved registration key "+out.KeyID, "", func(*store.Tx) error { return nil })
}

// AddServer is "Add new server", in either scenario.
func (s *Service) AddServer(ctx context.Context, who access.Subject, in NewServer) (Install, error) {
	if err := who.Require(access.Operator); err != nil {
		return Install{}, err
	}
	switch in.Scenario {
	case ByKey:
		return s.ActivateLivePatching(ctx, who, in.KeyID)
	case ByCustomerID:
		return s.addByToken(ctx, who, in.Note)
	}
	return Install{}, problem(ErrInput, "A server is added with a registration key (key) or with the Customer ID and a one-use token (customer). Nothing was changed.")
}

func (s *Service) addByToken(ctx context.Context, who access.Subject, note string) (Install, error) {
	note, err := checkNote(note)
	if err != nil {
		return Install{}, err
	}
	out, err := s.install(ctx, who.Organisation)
	if err != nil {
		return Install{}, err
	}
	secret, err := enrol.Generate(enrol.Token, rand.Reader)
	if err != nil {
		return Install{}, err
	}
	token := platformdb.Token{Organisation: who.Organisation, Public: secret.Public(), Token: fleet.Token{
		ID: secret.ID(), Note: note, CreatedBy: who.Name, CreatedAt: s.now(), ExpiresAt: s.now().Add(tokenLife)}}
	out.Scenario, out.TokenID, out.Token, out.ExpiresAt = ByCustomerID, token.ID, secret.Text(), token.ExpiresAt
	out.Command = s.command("LIVEMEND_TOKEN=" + out.Token + " LIVEMEND_CUSTOMER=" + out.CustomerID)
	return out, s.deed(ctx, who, "create.token", token.ID, "made a one-use token for a new server", "enrolment", func(tx *store.Tx) error {
		return platformdb.InsertToken(ctx, tx, token)
	})
}

// Tokens lists the one-use tokens, newest first.
func (s *Service) Tokens(ctx context.Context, who access.Subject) ([]fleet.Token, error) {
	if err := who.Require(access.Viewer); err != nil {
		return nil, err
	}
	rows, err := platformdb.Tokens(ctx, s.db, who.Organisation)
	if err != nil {
		return nil, err
	}
	out := make([]fleet.Token, len(rows))
	for i, t := range rows {
		out[i] = t.Token
	}
	return out, nil
}

// command is one line for a shell on the new server. What it carries has no
// characters that mean anything to a shell.
func (s *Service) command(credential string) string {
	return "curl -fsS " + s.cfg.PublicURL + "/install | " + credential + " LIVEMEND_TRUST=" + s.cfg.Bundle.Digest() + " sh"
}

// install fills in what both scenarios share.
func (s *Service) install(ctx context.Context, organisation string) (Install, error) {
	org, err := platformdb.Organisation(ctx, s.db, organisation)
	if err != nil {
		return Install{}, err
	}
	script, packages, err := s.installer()
	if err != nil {
		return Install{}, err
	}
	sum := sha256.Sum256(script)
	return Install{CustomerID: org.CustomerID, TrustDigest: s.cfg.Bundle.Digest(), ScriptURL: s.cfg.PublicURL + "/install",
		ScriptSHA256: hex.EncodeToString(sum[:]), Packages: packages}, nil
}

// installer makes the install script for the newest packages.
func (s *Service) installer() ([]byte, []Artifact, error) {
	version, sums, err := packaging.Find(s.cfg.Packages)
	if errors.Is(err, packaging.ErrNoPackage) {
		return nil, nil, &Problem{Err: fmt.Errorf("%w: %w", ErrConflict, err),
			Text: "The platform has no package of the agent. Nothing was changed; put one into its folder of packages (make packages makes it)."}
	}
	if err != nil {
		return nil, nil, err
	}
	script, err := packaging.InstallScript(packaging.Params{URL: s.cfg.PublicURL, Version: version, SHA256: sums})
	if err != nil {
		return nil, nil, err
	}
	var packages []Artifact
	for arch, sum := range sums {
		name := packaging.FileName(version, arch)
		info, err := os.Stat(filepath.Join(s.cfg.Packages, name))
		if err != nil {
			return nil, nil, fmt.Errorf("looking at the agent's package: %w", err)
		}
		packages = append(packages, Artifact{Name: name, Arch: arch, Length: info.Size(), SHA256: sum})
	}
	slices.SortFunc(packages, func(a, b Artifact) int { return strings.Compare(a.Arch, b.Arch) })
	return script, packages, nil
}

// InstallScript returns the script that GET /install serves.
func (s *Service) InstallScript() ([]byte, error) {
	script, _, err := s.installer()
	return script, err
}

// Package returns the file of one of the packages that the install script
// names, or ErrNotFound.
func (s *Service) Package(name string) (string, error) {
	_, packages, err := s.installer()
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(packages, func(a Artifact) bool { return a.Name == name }) {
		return "", problem(ErrNotFound, "There is no such package here. Get the install command anew.")
	}
	return filepath.Join(s.cfg.Packages, name), nil
}

// Bundle returns the trust bundle that GET /trust.json serves: what the trust
// digest of the install command pins.
func (s *Service) Bundle() []byte { return s.cfg.Bundle.Encode() }
