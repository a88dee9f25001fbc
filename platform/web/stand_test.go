package web

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/packaging"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/portal/portaltest"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// stand is a real platform on a real store, with a real portal behind it and
// the pages in front of it.
type stand struct {
	svc   *platform.Service
	db    *store.DB
	first *platform.FirstStart
	URL   string
}

const password = "correct horse battery"

func newStand(t *testing.T) *stand {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	portal := portaltest.Start(t, storetest.SQLite(t))
	files, err := repo.DirectorCeremony{RootKeys: 1, RootThreshold: 1}.Run(ctx, filepath.Join(dir, "director"), time.Now())
	check(t, err)
	director, err := os.ReadFile(files.Root)
	check(t, err)
	root, err := os.ReadFile(portal.Keys.Root)
	check(t, err)
	_, channel, err := repo.LoadChannelKey(files.Channel)
	check(t, err)
	bundle, err := trust.NewBundle(director, root, []string{hex.EncodeToString(channel)}, trust.Ed25519())
	check(t, err)

	packages := filepath.Join(dir, "packages")
	check(t, os.Mkdir(packages, 0o755))
	check(t, os.WriteFile(filepath.Join(packages, packaging.FileName("0.1.0", "amd64")), make([]byte, 812_344), 0o644))

	master := make([]byte, platform.MasterKeySize)
	rand.Read(master)
	db := storetest.Open(t, storetest.SQLite(t), platformdb.Migrations())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &stand{db: db, URL: "http://" + listener.Addr().String()}
	s.svc, err = platform.New(platform.Config{
		DB: db, Portal: portal.Client(t, "partner"), PortalURL: portal.URL, PublicURL: s.URL,
		Folder: filepath.Join(dir, "files"), Packages: packages, MasterKey: master, Bundle: bundle,
		Sign: func(context.Context, *trust.Manifest) ([]byte, error) { return nil, os.ErrPermission },
		Log:  slog.New(slog.DiscardHandler),
	})
	check(t, err)
	t.Cleanup(func() { check(t, s.svc.Close()) })
	s.first, err = s.svc.SetUp(ctx, "Example Customer", "admin")
	check(t, err)

	handler, err := New(s.svc, Options{Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	server := httptest.NewUnstartedServer(handler)
	check(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections() // ends the streams that browsers hold open
		server.Close()
	})
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the platform's runner until the end of the test.
func (s *stand) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.svc.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("the runner ended: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// publicKey makes an identity.
func publicKey(t *testing.T) []byte {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	return public
}

// fill puts servers, what was found on them and a catalogue into the store.
func (s *stand) fill(t *testing.T) {
	t.Helper()
	ctx, now, org := t.Context(), time.Now(), s.first.Organisation.ID
	sum := sha256.Sum256([]byte("a live patch"))
	sample := samplePatch()
	metadata := patch.Metadata{ID: sample.ID, Kind: patch.User, Level: sample.Level, Description: sample.Description,
		Target:    patch.Target{BuildID: patch.BuildID(sample.BuildID), Arch: sample.Arch, Library: sample.Library},
		Fixes:     []patch.Fix{{CVE: "LIVEMEND-2026-0001", Severity: "high", Component: "libechobeat1", Distribution: "debian-12", FixedVersion: "1.0-2"}},
		Functions: []patch.Function{{Name: "echobeat_reply", Size: 120}}, Provenance: patch.Provenance{Builder: sample.Builder}}
	target := platformdb.Target{Path: metadata.Path(), SHA256: hex.EncodeToString(sum[:]), Length: 12, Custom: string(metadata.Custom().JSON()), FirstSeen: now}
	rows := sampleCoverage()
	check(t, s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.PutTarget(ctx, tx, target); err != nil {
			return err
		}
		if err := platformdb.PutUpdate(ctx, tx, org, sampleUpdates()[0]); err != nil {
			return err
		}
		for i, summary := range sampleServers() {
			server := summary.Server
			server.Organisation, server.IdentityKey, server.ChannelKey, server.SeenAt = org, publicKey(t), publicKey(t), now
			if err := platformdb.PutServer(ctx, tx, server); err != nil {
				return err
			}
			var mine []coverage.Row
			for _, row := range rows {
				if row.Server == server.ID || i == 3 && row.State == coverage.Available {
					mine = append(mine, row.Row)
				}
			}
			if err := platformdb.ReplaceCoverage(ctx, tx, org, server.ID, mine, now); err != nil {
				return err
			}
			finding := fleet.Finding{Scanner: "openscap", Definition: "oval:1", CVE: "LIVEMEND-2026-0001", Component: "libechobeat1",
				Installed: "1.0-1", Severity: "high", Title: "Out-of-bounds read in libechobeat", Open: true, SeenAt: now}
			if err := platformdb.PutFindings(ctx, tx, server.ID, "openscap", []fleet.Finding{finding}); err != nil {
				return err
			}
		}
		if err := platformdb.ReplaceApplied(ctx, tx, sampleServers()[1].ID, []fleet.Applied{
			{Path: target.Path, SHA256: target.SHA256, Level: 2, Processes: 3, CVEs: []string{"LIVEMEND-2026-0001"}, At: now}}); err != nil {
			return err
		}
		for _, name := range []string{"wanted-box", "unknown-box"} {
			if _, err := platformdb.PutEnrolment(ctx, tx, org, fleet.EnrolmentRequest{ID: "E-" + name, Facts: fleet.Facts{Hostname: name, MachineID: "00112233", OS: "debian", OSVersion: "12", Arch: "amd64"},
				Fingerprint: "9f86d081884c7d65", Address: "192.0.2.17", State: fleet.EnrolmentPending, CreatedAt: now, SeenAt: now, IdentityKey: publicKey(t), ChannelKey: publicKey(t)}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// person signs somebody with a role in and returns a client that is them.
func (s *stand) person(t *testing.T, role string) *http.Client {
	t.Helper()
	ctx := t.Context()
	own := func(name, oneTime string) (platform.Session, access.Subject) {
		session, who, err := s.svc.SignIn(ctx, name, password, "192.0.2.1")
		if err != nil { // the first time
			_, who, err = s.svc.SignIn(ctx, name, oneTime, "192.0.2.1")
			check(t, err)
			check(t, s.svc.ChangePassword(ctx, who, "", oneTime, password))
			session, who, err = s.svc.SignIn(ctx, name, password, "192.0.2.1")
			check(t, err)
		}
		return session, who
	}
	session, who := own(s.first.Administrator, s.first.OneTimePassword)
	if role != "admin" {
		user, err := s.svc.CreateUser(ctx, who, platform.NewUser{Name: "the-" + role, Role: role})
		check(t, err)
		session, _ = own(user.Name, user.OneTimePassword)
	}
	return &http.Client{
		Transport:     bearer{session.Secret},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bearer adds a session's cookie to each request.
type bearer struct{ secret string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.AddCookie(&http.Cookie{Name: platform.SessionCookie, Value: b.secret})
	return http.DefaultTransport.RoundTrip(r)
}
