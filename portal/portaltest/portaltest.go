// Package portaltest runs a real portal inside a test: its service on a
// database of the test's, its web server on a free port of the loopback
// interface, a repository with keys of its own. It is for tests only.
package portaltest

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/api"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/store/portaldb"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust/repo"
)

// Portal is a running portal.
type Portal struct {
	URL     string
	Service *portal.Service
	Keys    repo.RepositoryFiles // of the repository, made for this test
	ahead   atomic.Int64         // nanoseconds
	log     buffer
	staging *blob.Dir
}

// Uploads returns how many uploaded files wait for a release.
func (p *Portal) Uploads(t testing.TB) int {
	t.Helper()
	list, err := p.staging.List("")
	check(t, err)
	return len(list)
}

// Log returns everything the portal logged so far.
func (p *Portal) Log() string {
	p.log.Lock()
	defer p.log.Unlock()
	return p.log.String()
}

type buffer struct {
	sync.Mutex
	strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Builder.Write(p)
}

// Start runs a portal on the database at dsn (see package storetest) until the
// end of the test.
func Start(t testing.TB, dsn string) *Portal {
	t.Helper()
	return StartLimited(t, dsn, api.DefaultLimits())
}

// StartLimited is Start with request limits of the test's.
func StartLimited(t testing.TB, dsn string, limits api.Limits) *Portal {
	t.Helper()
	p := &Portal{}
	dir := t.TempDir()
	migrations, err := portaldb.Migrations()
	check(t, err)
	db := storetest.Open(t, dsn, migrations)

	p.Keys, err = repo.Ceremony{RootKeys: 1, RootThreshold: 1, TargetsKeys: 2, TargetsThreshold: 2}.
		Run(t.Context(), filepath.Join(dir, "keys"), p.Now())
	check(t, err)
	snapshot, err := repo.LoadKey(p.Keys.Snapshot)
	check(t, err)
	timestamp, err := repo.LoadKey(p.Keys.Timestamp)
	check(t, err)
	repository, err := repo.Open(filepath.Join(dir, "repo"), repo.Online{Snapshot: snapshot, Timestamp: timestamp})
	check(t, err)
	t.Cleanup(func() { check(t, repository.Close()) })
	root, err := os.ReadFile(p.Keys.Root)
	check(t, err)
	targets, err := os.ReadFile(p.Keys.Targets)
	check(t, err)
	check(t, repository.Init(t.Context(), root, targets, p.Now()))

	p.staging, err = blob.Open(filepath.Join(dir, "staging"))
	check(t, err)
	t.Cleanup(func() { check(t, p.staging.Close()) })
	log := slog.New(slog.NewTextHandler(io.MultiWriter(testLog{t}, &p.log), nil))
	p.Service, err = portal.New(portal.Config{DB: db, Repository: repository, Staging: p.staging, Log: log, Now: p.Now})
	check(t, err)
	server := httptest.NewServer(api.New(p.Service, repository.Files(), api.Options{Log: log, Now: p.Now, Limits: limits}))
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Now returns the portal's time.
func (p *Portal) Now() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }

// Advance moves the portal's clock forward.
func (p *Portal) Advance(d time.Duration) { p.ahead.Add(int64(d)) }

// Credential makes a credential for a partner; the same name is the same partner.
func (p *Portal) Credential(t testing.TB, partner string, scope portal.Scope) string {
	t.Helper()
	text, err := p.Service.AddPartner(t.Context(), partner, scope)
	check(t, err)
	return text
}

// Client returns a client for the partner with a new credential.
func (p *Portal) Client(t testing.TB, partner string) *client.Client {
	t.Helper()
	return client.New(p.URL, p.Credential(t, partner, portal.ScopePartner), nil)
}

// Vendor returns a client that may publish.
func (p *Portal) Vendor(t testing.TB) *client.Client {
	t.Helper()
	return client.New(p.URL, p.Credential(t, "vendor", portal.ScopePublish), nil)
}

// Actor returns whom a new credential of the partner proves, for tests of the
// service itself.
func (p *Portal) Actor(t testing.TB, partner string, scope portal.Scope) portal.Actor {
	t.Helper()
	actor, err := p.Service.Authenticate(t.Context(), p.Credential(t, partner, scope))
	check(t, err)
	return actor
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testLog writes to the test's log.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("portal: %s", p)
	return len(p), nil
}
