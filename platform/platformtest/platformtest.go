// Package platformtest runs a real platform inside a test: its service on a
// database of the test's, a real portal beside it, its agents' end of the
// channel on a free port, and machines that speak to it as agents do. It is for
// tests only.
package platformtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/channel/server"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/agents"
	"livemend.dev/livemend/portal/portaltest"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// limit bounds every wait; nothing waits that long when it works.
const limit = 60 * time.Second

// Password is the administrator's, after SignedIn changed the one-time one.
const Password = "correct horse battery staple"

// Platform is a running platform.
type Platform struct {
	Portal  *portaltest.Portal
	Service *platform.Service
	URL     string // of the agents' end
	First   *platform.FirstStart
	Admin   access.Subject
	Files   repo.DirectorFiles
	Bundle  *trust.Bundle

	t       testing.TB
	dsn     string
	folder  string
	cfg     platform.Config
	ahead   atomic.Int64 // nanoseconds
	targets []byte       // published targets metadata
	server  *httptest.Server
	agents  *agents.Handler
	stop    func()
	switchd switched
}

// switched is a handler that can be replaced while the server runs, so that a
// restarted platform has the same address.
type switched struct {
	mu sync.Mutex
	h  http.Handler
}

func (s *switched) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.h
	s.mu.Unlock()
	if h == nil {
		http.Error(w, "stopped", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

func (s *switched) set(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h = h
}

// Start runs a portal on one new SQLite database and a platform on the database
// at dsn (see package storetest) until the end of the test, as after a first
// start: one organisation, one administrator, whose password is Password.
// Change, unless nil, changes the configuration.
func Start(t testing.TB, dsn string, change func(*platform.Config)) *Platform {
	t.Helper()
	p := &Platform{t: t, dsn: dsn, folder: t.TempDir(), Portal: portaltest.Start(t, storetest.SQLite(t))}
	root, err := os.ReadFile(p.Portal.Keys.Root)
	check(t, err)
	p.targets, err = os.ReadFile(p.Portal.Keys.Targets)
	check(t, err)
	p.Files, err = repo.DirectorCeremony{RootKeys: 1, RootThreshold: 1}.Run(t.Context(), filepath.Join(p.folder, "director"), time.Now())
	check(t, err)
	director, err := os.ReadFile(p.Files.Root)
	check(t, err)
	_, public, err := repo.LoadChannelKey(p.Files.Channel)
	check(t, err)
	p.Bundle, err = trust.NewBundle(director, root, []string{hex.EncodeToString(public)}, trust.Ed25519())
	check(t, err)
	signer, err := repo.LoadKey(p.Files.Director)
	check(t, err)

	p.server = httptest.NewServer(&p.switchd)
	t.Cleanup(p.server.Close)
	p.URL = p.server.URL
	packages := t.TempDir()
	check(t, os.WriteFile(filepath.Join(packages, "livemend-agent_0.1.0_amd64.deb"), []byte("the agent's package"), 0o600))
	master := make([]byte, platform.MasterKeySize)
	rand.Read(master)
	p.cfg = platform.Config{
		Portal: p.Portal.Client(t, "partner"), PortalURL: p.Portal.URL, PublicURL: p.URL,
		Folder: filepath.Join(p.folder, "platform"), Packages: packages, MasterKey: master, Bundle: p.Bundle,
		Sign: func(ctx context.Context, m *trust.Manifest) ([]byte, error) {
			return repo.Sign(ctx, (&trust.Envelope{Signed: m.Value()}).Encode(), signer)
		},
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)), Now: func() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) },
	}
	if change != nil {
		change(&p.cfg)
	}
	p.run()
	t.Cleanup(func() { p.Stop() })
	p.First, err = p.Service.SetUp(t.Context(), "Example Ltd", "admin")
	check(t, err)
	p.Admin = p.SignedIn("admin", p.First.OneTimePassword)
	return p
}

// run opens database and service and starts its loops.
func (p *Platform) run() {
	p.t.Helper()
	db := storetest.Open(p.t, p.dsn, platformdb.Migrations())
	p.cfg.DB = db
	service, err := platform.New(p.cfg)
	check(p.t, err)
	private, _, err := repo.LoadChannelKey(p.Files.Channel)
	check(p.t, err)
	key, err := server.NewKey(private)
	check(p.t, err)
	handler := agents.New(service, []server.Key{key}, p.cfg.Log)
	p.switchd.set(handler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	p.Service, p.agents = service, handler
	p.stop = func() {
		p.switchd.set(nil)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("the platform's loop ended with %v", err)
		}
		handler.Close()
		check(p.t, service.Close())
	}
}

// Stop ends the platform as a signal would.
func (p *Platform) Stop() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// Restart ends the platform and starts it again on the same database, folders
// and address.
func (p *Platform) Restart() {
	p.t.Helper()
	p.Stop()
	p.run()
}

// Advance moves the platform's clock forward. Timers that already run do not
// notice.
func (p *Platform) Advance(d time.Duration) { p.ahead.Add(int64(d)) }

// SignedIn signs in with a one-time password, sets Password instead and signs
// in again.
func (p *Platform) SignedIn(name, oneTime string) access.Subject {
	p.t.Helper()
	_, who, err := p.Service.SignIn(p.t.Context(), name, oneTime, "test")
	check(p.t, err)
	check(p.t, p.Service.ChangePassword(p.t.Context(), who, "", oneTime, Password))
	_, who, err = p.Service.SignIn(p.t.Context(), name, Password, "test")
	check(p.t, err)
	return who
}

// Organisation makes another organisation with an administrator, whom it
// returns.
func (p *Platform) Organisation(name string) access.Subject {
	p.t.Helper()
	first, err := p.Service.CreateOrganisation(p.t.Context(), name, "admin of "+name)
	check(p.t, err)
	return p.SignedIn(first.Administrator, first.OneTimePassword)
}

// Publish signs and publishes a target at the portal.
func (p *Platform) Publish(target trust.Target, content []byte) {
	p.t.Helper()
	sum := sha256.Sum256(content)
	target.Length, target.SHA256 = int64(len(content)), hex.EncodeToString(sum[:])
	doc, err := repo.AddTarget(p.targets, target, time.Now().Add(repo.TargetsLife))
	check(p.t, err)
	p.release(doc, map[string][]byte{target.Path: content})
}

// Withdraw takes a target out of the portal's repository.
func (p *Platform) Withdraw(path string) {
	p.t.Helper()
	doc, err := repo.RemoveTarget(p.targets, path, time.Now().Add(repo.TargetsLife))
	check(p.t, err)
	p.release(doc, nil)
}

func (p *Platform) release(doc []byte, artifacts map[string][]byte) {
	p.t.Helper()
	var signers []repo.Signer
	for _, name := range p.Portal.Keys.TargetsKeys {
		key, err := repo.LoadKey(name)
		check(p.t, err)
		signers = append(signers, key)
	}
	signed, err := repo.Sign(p.t.Context(), doc, signers...)
	check(p.t, err)
	check(p.t, p.Portal.Vendor(p.t).Publish(p.t.Context(), signed, artifacts))
	p.targets = signed
}

// Library is the library that Patch fits.
const Library = "3f2a91c07bd4e85566aa10b2c9d8e7f60123abcd"

// CVE is what Patch fixes.
const CVE = "DEMO-2026-0001"

// Patch returns a well-formed live patch of a level for Library, and its
// artifact.
func Patch(t testing.TB, level int64) (*patch.Metadata, []byte) {
	t.Helper()
	code := make([]byte, 64)
	artifact, err := image.Encode(&image.File{BuildID: Library, Arch: "amd64",
		Segments: []image.Segment{{Prot: image.ReadExec, Size: image.PageSize, Data: append(code, byte(level))}},
		Hunks:    []image.Hunk{{Name: "echobeat_reply", Off: 0x1000, Size: 40, OldHash: sha256.Sum256([]byte("old")), Entry: [image.EntrySize]byte{1, 2, 3}, New: 0}}})
	check(t, err)
	return &patch.Metadata{ID: "U20261123-3f2a91c0-" + string('0'+rune(level)), Kind: patch.User, Level: level,
		Target:      patch.Target{BuildID: Library, Arch: "amd64", Library: "libc.so.6"},
		Fixes:       []patch.Fix{{CVE: CVE, Severity: "high", Component: "libc6", Distribution: "debian-12", FixedVersion: "2.36-9+deb12u99"}},
		Functions:   []patch.Function{{Name: "echobeat_reply", Size: 64}},
		Description: "Checks the length of a heartbeat."}, artifact
}

// PublishPatch publishes Patch of a level and returns its path.
func (p *Platform) PublishPatch(level int64) string {
	p.t.Helper()
	md, artifact := Patch(p.t, level)
	p.Publish(trust.Target{Path: md.Path(), Custom: md.Custom()}, artifact)
	return md.Path()
}

// PublishContent publishes OVAL content for the scanner.
func (p *Platform) PublishContent(name string, content []byte) {
	p.t.Helper()
	described := patch.Content{Scanner: platform.DefaultScanner, Format: "oval-definitions-5.11", Title: name}
	p.Publish(trust.Target{Path: "content/" + name, Custom: described.Custom()}, content)
}

// WaitJob waits until a job has ended, by its events, and returns it.
func (p *Platform) WaitJob(who access.Subject, id int64) platform.JobDetail {
	p.t.Helper()
	return p.WaitFor(who, id, func(j platform.JobDetail) bool { return j.State.Final() })
}

// WaitFor waits until done says so of a job, by its events.
func (p *Platform) WaitFor(who access.Subject, id int64, done func(platform.JobDetail) bool) platform.JobDetail {
	p.t.Helper()
	changes, end := p.Service.Watch(who)
	defer end()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		job, err := p.Service.Job(p.t.Context(), who, id)
		check(p.t, err)
		if done(job) {
			return job
		}
		select {
		case <-changes:
		case <-timeout.C:
			p.t.Fatalf("job %d is still %s: %s; tasks %+v", id, job.State, job.Gate, job.Tasks)
		}
	}
}

// Task returns the one task of a job on a server.
func Task(t testing.TB, job platform.JobDetail, server string) platform.TaskDetail {
	t.Helper()
	for _, task := range job.Tasks {
		if task.Server == server {
			return task
		}
	}
	t.Fatalf("job %d has no task for %s", job.ID, server)
	return platform.TaskDetail{}
}

// Outcomes returns the outcome of each security check of a task by name.
func Outcomes(task platform.TaskDetail) map[string]fleet.CheckOutcome {
	out := map[string]fleet.CheckOutcome{}
	for _, c := range task.Checks {
		out[c.Name] = c.Outcome
	}
	return out
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testLog writes to the test's log.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("platform: %s", b)
	return len(b), nil
}
