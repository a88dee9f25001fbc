package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/server"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
	"livemend.dev/livemend/wire"
)

// otherEnd is the platform's end of the connection: a real server, a real
// portal repository and a real director, with hooks that make it lie.
type otherEnd struct {
	t   *testing.T
	url string

	repository *repo.Repository
	repoDir    string
	repoFiles  repo.RepositoryFiles
	targets    []byte // targets document, newest version, unsigned edits included
	artifacts  fstest.MapFS

	director    *repo.KeyFile
	directorDir repo.DirectorFiles
	bundle      *trust.Bundle
	channel     server.Key
	credential  enrol.Credential
	work        chan []byte
	reports     chan wire.Report
	alarms      chan wire.Attack
	snapshots   chan wire.Snapshot
	finished    sync.WaitGroup
	open        atomic.Int64 // connections

	mu          sync.Mutex
	systems     map[[32]byte]*system // by channel key
	byKey       map[string]*system   // by identity key
	approve     func() error         // what a person says of a bare Customer ID
	lie         func(name string, b []byte) []byte
	heard       func(wire.Step) // what happens when the agent says what it does
	noInventory error           // why no inventory is taken
	forget      int             // results that are dropped, with their connection, before they are stored
	counter     int64
	clock       func() time.Time
}

type system struct {
	id       string
	identity ed25519.PublicKey
	seen     int
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newPlatform(t *testing.T) *otherEnd {
	t.Helper()
	p := &otherEnd{
		t: t, repoDir: t.TempDir(), artifacts: fstest.MapFS{},
		work: make(chan []byte, 16), reports: make(chan wire.Report, 16), alarms: make(chan wire.Attack, 16),
		snapshots: make(chan wire.Snapshot, 1000),
		systems:   map[[32]byte]*system{}, byKey: map[string]*system{}, clock: time.Now,
	}
	p.startRepository()
	p.startDirector()
	p.credential = must[enrol.Credential](t)(enrol.Generate(enrol.Key, rand.Reader))
	ctx, stop := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /trust.json", func(w http.ResponseWriter, _ *http.Request) { w.Write(p.bundle.Encode()) })
	mux.HandleFunc(channel.Path, func(w http.ResponseWriter, r *http.Request) {
		if conn, err := server.Upgrade(w, r, []server.Key{p.channel}); err == nil {
			p.finished.Go(func() { p.serve(ctx, conn) })
		}
	})
	s := httptest.NewServer(mux)
	p.url = s.URL
	t.Cleanup(func() { stop(); p.finished.Wait(); s.Close() })
	return p
}

func (p *otherEnd) startRepository() {
	p.t.Helper()
	ceremony := repo.Ceremony{RootKeys: 3, RootThreshold: 2, TargetsKeys: 2, TargetsThreshold: 2}
	p.repoFiles = must[repo.RepositoryFiles](p.t)(ceremony.Run(p.t.Context(), filepath.Join(p.t.TempDir(), "keys"), time.Now()))
	online := repo.Online{Snapshot: p.key(p.repoFiles.Snapshot), Timestamp: p.key(p.repoFiles.Timestamp)}
	p.repository = must[*repo.Repository](p.t)(repo.Open(p.repoDir, online))
	p.t.Cleanup(func() { p.repository.Close() })
	p.targets = p.file(p.repoFiles.Targets)
	if err := p.repository.Init(p.t.Context(), p.file(p.repoFiles.Root), p.targets, time.Now()); err != nil {
		p.t.Fatal(err)
	}
}

func (p *otherEnd) startDirector() {
	p.t.Helper()
	p.directorDir = must[repo.DirectorFiles](p.t)(repo.DirectorCeremony{RootKeys: 1, RootThreshold: 1}.Run(p.t.Context(), filepath.Join(p.t.TempDir(), "director"), time.Now()))
	p.director = p.key(p.directorDir.Director)
	private, public, err := repo.LoadChannelKey(p.directorDir.Channel)
	if err != nil {
		p.t.Fatal(err)
	}
	p.channel = must[server.Key](p.t)(server.NewKey(private))
	p.bundle = must[*trust.Bundle](p.t)(trust.NewBundle(p.file(p.directorDir.Root), p.file(p.repoFiles.Root), []string{hex.EncodeToString(public)}, trust.Ed25519()))
}

func (p *otherEnd) key(path string) *repo.KeyFile {
	return must[*repo.KeyFile](p.t)(repo.LoadKey(path))
}
func (p *otherEnd) file(path string) []byte { return must[[]byte](p.t)(os.ReadFile(path)) }

// publish adds targets to the portal's repository.
func (p *otherEnd) publish(files map[string][]byte, describe func(path string) trust.Target) {
	p.t.Helper()
	for path, b := range files {
		target := describe(path)
		sum := sha256.Sum256(b)
		target.Path, target.Length, target.SHA256 = path, int64(len(b)), hex.EncodeToString(sum[:])
		p.artifacts[path] = &fstest.MapFile{Data: b}
		p.targets = must[[]byte](p.t)(repo.AddTarget(p.targets, target, time.Now().Add(24*time.Hour)))
		p.targets = must[[]byte](p.t)(repo.Sign(p.t.Context(), p.targets, p.key(p.repoFiles.TargetsKeys[0]), p.key(p.repoFiles.TargetsKeys[1])))
		if err := p.repository.Publish(p.t.Context(), p.targets, p.artifacts, time.Now()); err != nil {
			p.t.Fatal(err)
		}
	}
}

// order makes a manifest for the one enrolled system.
func (p *otherEnd) order(action trust.Action, path string, change func(*trust.Manifest)) []byte {
	p.t.Helper()
	return p.signed(p.director, p.manifest(action, path, change))
}

func (p *otherEnd) manifest(action trust.Action, path string, change func(*trust.Manifest)) *trust.Manifest {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counter++
	m := &trust.Manifest{Counter: p.counter, Job: "job", Task: "task-" + string(action), Action: action, Path: path,
		Issued: p.clock().Unix(), NotAfter: p.clock().Add(10 * time.Minute).Unix()}
	for _, s := range p.byKey {
		m.SystemID, m.KeyHash = s.id, trust.HashKey(s.identity)
	}
	if change != nil {
		change(m)
	}
	return m
}

func (p *otherEnd) signed(key *repo.KeyFile, m *trust.Manifest) []byte {
	return trust.Seal(m.Value(), repo.KeyID(key.Public()), func(message []byte) []byte {
		return must[[]byte](p.t)(key.Sign(p.t.Context(), message))
	})
}

// serve is one connection.
func (p *otherEnd) serve(ctx context.Context, conn *channel.Conn) {
	p.open.Add(1)
	defer p.open.Add(-1)
	peer := channel.NewPeer(conn)
	challenge := make([]byte, 32)
	if _, err := rand.Read(challenge); err != nil {
		p.t.Error(err)
	}
	_ = peer.Serve(ctx, func(ctx context.Context, m wire.Method, body []byte) ([]byte, error) { // ends when the agent goes
		switch m {
		case wire.Hello:
			p.mu.Lock()
			defer p.mu.Unlock()
			return wire.Welcome{Version: wire.Version, Time: time.Now().Unix(), Known: p.systems[conn.RemoteKey()] != nil}.Encode(), nil
		case wire.Challenge:
			return challenge, nil
		case wire.Enrol:
			return p.enrol(conn, challenge, body)
		case wire.Inventory:
			p.mu.Lock()
			refusal := p.noInventory
			p.mu.Unlock()
			if refusal != nil {
				return nil, refusal
			}
			s, err := wire.DecodeSnapshot(body)
			if err != nil {
				p.t.Errorf("inventory: %v", err)
			}
			p.snapshots <- s
			return nil, err
		case wire.Work:
			select {
			case b := <-p.work:
				return b, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case wire.Metadata:
			return p.piece(body)
		case wire.Target:
			return p.piece(body)
		case wire.Progress:
			step, err := wire.DecodeStep(body)
			p.mu.Lock()
			heard := p.heard
			p.mu.Unlock()
			if heard != nil {
				heard(step)
			}
			return nil, err
		case wire.Result:
			return nil, p.result(conn, body)
		case wire.Alarm:
			a, err := wire.DecodeAttack(body)
			p.alarms <- a
			return nil, err
		}
		return nil, &wire.Error{Code: wire.CodeMalformed, Message: "no such method"}
	})
}

func (p *otherEnd) served(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(p.repoDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		b = nil
	}
	p.mu.Lock()
	lie := p.lie
	p.mu.Unlock()
	if lie != nil {
		b = lie(name, b)
	}
	if b == nil {
		return nil, &wire.Error{Code: wire.CodeNotFound, Message: "no such file"}
	}
	return b, nil
}

func (p *otherEnd) piece(body []byte) ([]byte, error) {
	r, err := wire.DecodeRange(body)
	if err != nil {
		return nil, err
	}
	name := r.Path
	if r.SHA256 != "" {
		name = "targets/" + trust.Target{Path: r.Path, SHA256: r.SHA256}.StorageName()
	}
	b, err := p.served(name)
	if err != nil {
		return nil, err
	}
	return b[min(r.Off, int64(len(b))):min(r.Off+r.Len, int64(len(b)))], nil
}

func (p *otherEnd) enrol(conn *channel.Conn, challenge, body []byte) ([]byte, error) {
	e, err := wire.DecodeEnrolment(body)
	if err != nil {
		return nil, err
	}
	remote := conn.RemoteKey()
	b := enrol.Binding{Challenge: challenge, Handshake: conn.HandshakeHash(), Credential: e.Credential, IdentityKey: e.IdentityKey, ChannelKey: remote[:]}
	if err := enrol.Verify(e.IdentityKey, b, e.Identity); err != nil || !bytes.Equal(remote[:], e.ChannelKey) {
		return nil, &wire.Error{Code: wire.CodeRefused, Message: "the proof of the identity key does not fit"}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Credential {
	case p.credential.ID():
		if err := enrol.Verify(p.credential.Public(), b, e.KeyProof); err != nil {
			return nil, &wire.Error{Code: wire.CodeRefused, Message: "the proof of the key does not fit"}
		}
	case "C-TEST":
		if err := p.approve(); err != nil {
			return nil, err
		}
	default:
		return nil, &wire.Error{Code: wire.CodeRefused, Message: "no such key"}
	}
	s := p.byKey[string(e.IdentityKey)]
	if s == nil {
		s = &system{id: "S-" + hex.EncodeToString(e.IdentityKey[:4]), identity: e.IdentityKey}
		p.byKey[string(e.IdentityKey)] = s
	}
	s.seen++
	p.systems[remote] = s
	return wire.Admission{SystemID: s.id, Customer: "Test & Sons"}.Encode(), nil
}

func (p *otherEnd) result(conn *channel.Conn, body []byte) error {
	p.mu.Lock()
	s := p.systems[conn.RemoteKey()]
	drop := p.forget > 0
	if drop {
		p.forget--
	}
	p.mu.Unlock()
	if drop {
		return conn.Close()
	}
	v, err := trust.Open(body, s.identity)
	if err != nil {
		p.t.Errorf("report: %v", err)
		return err
	}
	r, err := wire.ParseReport(v)
	if err != nil {
		p.t.Errorf("report: %v", err)
		return err
	}
	p.reports <- r
	return nil
}

// report waits for the next report.
func (p *otherEnd) report() wire.Report {
	p.t.Helper()
	return next(p.t, p.reports, "a report")
}

// limit bounds every wait; nothing waits that long when it works.
const limit = time.Minute

func next[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("%s did not come", what)
		panic("not reached")
	}
}
