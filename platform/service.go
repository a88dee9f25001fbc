package platform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/fleet"
	portal "livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

// DefaultSilence is after how long an unanswered task has failed.
const DefaultSilence = 10 * time.Minute

// MasterKeySize is the size of Config.MasterKey in bytes.
const MasterKeySize = 32

// Config is what a platform is made of. Everything but the fields marked
// optional is required.
type Config struct {
	DB           *store.DB      // migrated with platformdb.Migrations
	Portal       *portal.Client // with the partner's credential
	PortalURL    string
	PublicURL    string // where agents and people reach this platform, without a slash at the end
	Folder       string // for the repository's verified files
	Packages     string // folder with the agent's packages
	MasterKey    []byte // MasterKeySize bytes; encrypts the registration keys' texts
	Bundle       *trust.Bundle
	Sign         func(ctx context.Context, m *trust.Manifest) ([]byte, error) // by the director's signer process
	CheckCommand []string                                                     // optional; external scanner of patches, gets the file's path as its last argument
	PerMinute    int                                                          // optional; orders that Sign takes in a minute, 0 = any number
	Silence      time.Duration                                                // optional; DefaultSilence; at most trust.MaxManifestLife
	BothInOne    bool                                                         // portal and platform in one process
	Log          *slog.Logger
	Now          func() time.Time // optional; time.Now
}

// Service is the platform. Its methods may be called concurrently. Run must be
// running for jobs to make progress.
type Service struct {
	cfg       Config
	db        *store.DB
	log       *slog.Logger
	portal    *portal.Client
	mirror    *mirror
	files     *blob.Dir // verified targets by hash
	hub       *hub
	vault     *vault
	passwords *semaphore.Weighted // a password check costs 19 MiB
	pace      *rate.Limiter       // of orders to be signed
	wake      chan struct{}       // tells the runner that there is something to check

	refreshing sync.Mutex  // one refresh of the repository at a time
	behind     atomic.Bool // coverage may be older than what it is computed from
	fresh      freshness
	known      knowledge
	memo       contentMemo
}

// passwordChecks bounds the password checks that run at a time.
const passwordChecks = 4

// New makes a platform and opens its files. The caller closes it.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Silence == 0:
		cfg.Silence = DefaultSilence
	case cfg.PerMinute < 0 || cfg.PerMinute == 1:
		return nil, errors.New("a signer takes at least two orders in a minute")
	case cfg.Silence < time.Second || cfg.Silence > trust.MaxManifestLife:
		return nil, fmt.Errorf("the time of silence must be between a second and %s: an order is good for no longer", trust.MaxManifestLife)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	vault, err := newVault(cfg.MasterKey)
	if err != nil {
		return nil, err
	}
	cache, err := client.OpenFolder(filepath.Join(cfg.Folder, "repository"))
	if err != nil {
		return nil, fmt.Errorf("opening the folder of the repository's metadata: %w", err)
	}
	published, err := blob.Open(filepath.Join(cfg.Folder, "mirror"))
	if err != nil {
		return nil, err
	}
	files, err := blob.Open(filepath.Join(cfg.Folder, "targets"))
	if err != nil {
		return nil, errors.Join(err, published.Close())
	}
	s := &Service{
		cfg: cfg, db: cfg.DB, log: cfg.Log, portal: cfg.Portal, files: files,
		mirror: &mirror{cache: cache, files: published},
		hub:    newHub(), vault: vault, passwords: semaphore.NewWeighted(passwordChecks),
		pace: paceOf(cfg.PerMinute), wake: make(chan struct{}, 1),
	}
	s.behind.Store(true) // the last run may have ended in the middle
	err = errors.Join(s.mirror.pin(cfg.Bundle.PortalBytes, cfg.Bundle.Portal.Version),
		s.mirror.keep(strconv.FormatInt(cfg.Bundle.Director.Version, 10)+".director-root.json", cfg.Bundle.DirectorBytes))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keeping the roots of trust: %w", err), s.Close())
	}
	return s, nil
}

// paceOf stays below a signer's limit of orders in any minute: a burst of a
// quarter, and the rest evenly.
func paceOf(perMinute int) *rate.Limiter {
	if perMinute == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	burst := max(perMinute/4, 1)
	return rate.NewLimiter(rate.Limit(float64(perMinute-burst)/60), burst)
}

// Close gives the folders back. Run must have ended.
func (s *Service) Close() error { return errors.Join(s.mirror.files.Close(), s.files.Close()) }

func (s *Service) now() time.Time { return s.cfg.Now().UTC() }

// newID makes an id that nobody guesses, with a prefix that says of what.
func newID(prefix string) string { return prefix + "-" + rand.Text()[:16] }

// problem makes a Problem.
func problem(kind error, format string, args ...any) error {
	return &Problem{Err: kind, Text: fmt.Sprintf(format, args...)}
}

// missing turns the store's "no such row" into words for people.
func missing(err error, what string) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem(ErrNotFound, "There is no %s of this name in your organisation. Nothing was changed; look it up in the list.", what)
	}
	return err
}

// checkNote bounds a text that a person wrote.
func checkNote(note string) (string, error) {
	note = strings.TrimSpace(note)
	if len(note) > MaxNote || strings.ContainsFunc(note, func(r rune) bool { return r < ' ' }) {
		return "", problem(ErrInput, "A note or name has at most %d bytes and one line. Nothing was changed.", MaxNote)
	}
	return note, nil
}

// checkName is checkNote for a text that must not be empty.
func checkName(name string) (string, error) {
	name, err := checkNote(name)
	if err == nil && name == "" {
		return "", problem(ErrInput, "A name is needed. Nothing was changed.")
	}
	return name, err
}

// audited appends who did what, in the deed's own transaction.
func (s *Service) audited(ctx context.Context, tx *store.Tx, who access.Subject, action, object, detail string) error {
	return platformdb.AddAudit(ctx, tx, who.Organisation, audit.Entry{At: s.now(), Actor: who.Name, Action: action, Object: object, Detail: detail})
}

// deed runs fn in a transaction with its audit entry and event, and tells who
// watches. An empty text makes no event.
func (s *Service) deed(ctx context.Context, who access.Subject, action, object, text string, kind string, fn func(*store.Tx) error) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if err := s.audited(ctx, tx, who, action, object, text); err != nil {
			return err
		}
		if kind == "" {
			return nil
		}
		return platformdb.AddEvent(ctx, tx, who.Organisation, fleet.Event{Kind: kind, Text: text + " (" + who.Name + ")", At: s.now()})
	})
	if err == nil && kind != "" {
		s.hub.publish(who.Organisation)
	}
	return err
}

// systemSubject is the platform itself, in audit entries.
func systemSubject(org string) access.Subject {
	return access.Subject{Organisation: org, Name: "platform", Role: access.Admin}
}

// pageLimit bounds the rows of one page.
func pageLimit(limit int) int {
	if limit <= 0 {
		return DefaultPage
	}
	return min(limit, MaxPage)
}
