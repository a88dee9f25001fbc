package signer_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/signer"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// childArg makes this test's own binary the signer child.
const childArg = "signer-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == childArg {
		os.Exit(child(os.Args[2], os.Args[3], os.Args[4:]))
	}
	os.Exit(m.Run())
}

func child(role, perMinute string, keys []string) int {
	// The race detector keeps a process that ends for a second; the environment
	// that could tell it otherwise is empty here, on purpose.
	defer func() { _, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) }()
	n, err := strconv.Atoi(perMinute)
	if err == nil {
		err = signer.Harden()
	}
	if err == nil && len(os.Environ()) > 0 {
		err = errors.New("the child has the parent's environment")
	}
	if err == nil {
		err = signer.Serve(context.Background(), signer.Config{Role: signer.Role(role), Keys: keys, PerMinute: n, Now: time.Now}, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
	return 0
}

func newKeys(t *testing.T, n int) []string {
	t.Helper()
	paths := make([]string, n)
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "key")
		if _, err := repo.CreateKey(paths[i]); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// childPIDs finds the children of this process in /proc.
func childPIDs(t *testing.T) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if fields[1] == strconv.Itoa(os.Getpid()) && fields[0] != "Z" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func start(t *testing.T, role signer.Role, perMinute int, keys []string) *signer.Client {
	t.Helper()
	argv := append([]string{os.Args[0], childArg, string(role), strconv.Itoa(perMinute)}, keys...)
	c, err := signer.Start(t.Context(), argv, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left := childPIDs(t); len(left) > 0 {
			t.Errorf("children left: %v", left)
		}
	})
	return c
}

func manifest(counter int64) *trust.Manifest {
	now := time.Now().Unix()
	return &trust.Manifest{SystemID: "sys-1", KeyHash: strings.Repeat("0", 64), Counter: counter, Task: "task",
		Action: trust.Scan, Scanner: "openscap", Issued: now, NotAfter: now + 600}
}

func metadata(role string, life time.Duration) []byte {
	return cjson.Object(
		cjson.F("_type", cjson.String(role)),
		cjson.F("expires", cjson.String(trust.FormatTime(time.Now().Add(life))))).Canonical()
}

func directorRoot(t *testing.T, director []*signer.Key, threshold int) *trust.DirectorRoot {
	t.Helper()
	k, err := repo.LoadKey(newKeys(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	spec := repo.DirectorSpec{Version: 1, Expires: time.Now().Add(time.Hour), RootKeys: []trust.PublicKey{k.Public()}, RootThreshold: 1, DirectorThreshold: threshold}
	for _, d := range director {
		spec.DirectorKeys = append(spec.DirectorKeys, d.Public())
	}
	doc, err := repo.NewDirectorRoot(spec)
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = repo.Sign(t.Context(), doc, k); err != nil {
		t.Fatal(err)
	}
	root, err := trust.ParseDirectorRoot(doc, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestDirectorSignsManifests(t *testing.T) {
	c := start(t, signer.Director, 0, newKeys(t, 2))
	root := directorRoot(t, c.Keys(), 2)
	who := trust.Identity{SystemID: "sys-1", KeyHash: strings.Repeat("0", 64)}
	var wg sync.WaitGroup
	for counter := int64(1); counter <= 20; counter++ {
		wg.Go(func() {
			envelope, err := c.SignManifest(t.Context(), manifest(counter))
			if err != nil {
				t.Error(err)
				return
			}
			m, err := trust.VerifyManifest(envelope, root, who, counter-1, time.Now())
			if err != nil || m.Counter != counter {
				t.Errorf("manifest %d: %+v, %v", counter, m, err)
			}
		})
	}
	wg.Wait()
}

func TestDirectorRefuses(t *testing.T) {
	c := start(t, signer.Director, 0, newKeys(t, 1))
	tooLong := manifest(1)
	tooLong.NotAfter = tooLong.Issued + 3601
	noCounter := manifest(0)
	future := manifest(1)
	future.Issued += 600
	future.NotAfter += 600
	past := manifest(1)
	past.Issued -= 1200
	past.NotAfter -= 1200
	extra := cjson.Object(append(manifest(1).Value().Members(), cjson.F("command", cjson.String("rm")))...)
	for name, message := range map[string][]byte{
		"lasts too long":       tooLong.Value().Canonical(),
		"no counter":           noCounter.Value().Canonical(),
		"from the future":      future.Value().Canonical(),
		"past":                 past.Value().Canonical(),
		"an unknown field":     extra.Canonical(),
		"timestamp metadata":   metadata("timestamp", time.Hour),
		"root metadata":        metadata("root", time.Hour),
		"not canonical":        append(manifest(1).Value().Canonical(), '\n'),
		"not JSON":             []byte("sign this"),
		"nothing":              nil,
		"canonical, not known": []byte(`"text"`),
	} {
		if sig, err := c.Sign(t.Context(), message); !errors.Is(err, signer.ErrRefused) {
			t.Errorf("%s: signature %x, %v", name, sig, err)
		}
	}
	if _, err := c.SignManifest(t.Context(), tooLong); !errors.Is(err, trust.ErrNotFresh) {
		t.Errorf("SignManifest: %v", err)
	}
	if _, err := c.SignManifest(t.Context(), manifest(1)); err != nil {
		t.Errorf("after the refusals a good one: %v", err)
	}
}

func TestManifestsPerMinute(t *testing.T) {
	c := start(t, signer.Director, 3, newKeys(t, 1))
	for counter := range int64(3) {
		if _, err := c.SignManifest(t.Context(), manifest(counter+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.SignManifest(t.Context(), manifest(4)); !errors.Is(err, signer.ErrRefused) {
		t.Errorf("the fourth of three: %v", err)
	}
}

func TestOnlineRole(t *testing.T) {
	c := start(t, signer.Online, 0, newKeys(t, 2))
	for _, tt := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"timestamp", metadata("timestamp", repo.TimestampLife), true},
		{"snapshot", metadata("snapshot", repo.SnapshotLife), true},
		{"timestamp that lasts too long", metadata("timestamp", signer.MaxTimestampLife+time.Hour), false},
		{"snapshot that lasts too long", metadata("snapshot", signer.MaxSnapshotLife+time.Hour), false},
		{"targets", metadata("targets", time.Hour), false},
		{"root", metadata("root", time.Hour), false},
		{"director root", metadata("director-root", time.Hour), false},
		{"manifest", manifest(1).Value().Canonical(), false},
	} {
		for i, k := range c.Keys() {
			_, err := k.Sign(t.Context(), tt.b)
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, signer.ErrRefused) {
				t.Errorf("%s, key %d: %v", tt.name, i, err)
			}
		}
	}
}

func TestRepositoryPublishesThroughTheChild(t *testing.T) {
	now := time.Now()
	files, err := repo.Ceremony{RootKeys: 1, RootThreshold: 1, TargetsKeys: 1, TargetsThreshold: 1}.Run(t.Context(), t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, signer.Online, 0, []string{files.Snapshot, files.Timestamp})
	r, err := repo.Open(t.TempDir(), repo.Online{Snapshot: c.Keys()[0], Timestamp: c.Keys()[1]})
	if err != nil {
		t.Fatal(err)
	}
	root, err1 := os.ReadFile(files.Root)
	targets, err2 := os.ReadFile(files.Targets)
	if err := errors.Join(err1, err2, r.Init(t.Context(), root, targets, now)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Trusted(now); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeadChildIsStartedAgain(t *testing.T) {
	c := start(t, signer.Director, 0, newKeys(t, 1))
	for range 2 {
		pids := childPIDs(t)
		if len(pids) != 1 {
			t.Fatalf("children %v, want one", pids)
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := c.SignManifest(t.Context(), manifest(1)); err != nil {
			t.Fatalf("after the death: %v", err)
		}
	}
}

func TestCallerWhoLeavesDoesNotKillTheChild(t *testing.T) {
	c := start(t, signer.Director, 0, newKeys(t, 1))
	before := childPIDs(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		if _, err := c.SignManifest(gone, manifest(1)); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if _, err := c.SignManifest(t.Context(), manifest(1)); err != nil {
		t.Fatal(err)
	}
	if after := childPIDs(t); len(after) != 1 || after[0] != before[0] {
		t.Errorf("children %v, before %v", after, before)
	}
}

func TestChildEndsWithItsParentsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	argv := append([]string{os.Args[0], childArg, "online", "0"}, newKeys(t, 1)...)
	c, err := signer.Start(ctx, argv, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Close(); err != nil { // waits for the end
		t.Error(err)
	}
	if left := childPIDs(t); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
	if _, err := c.Sign(t.Context(), metadata("timestamp", time.Hour)); !errors.Is(err, signer.ErrClosed) {
		t.Errorf("signing after the end: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for name, argv := range map[string][]string{
		"no program":          nil,
		"missing program":     {filepath.Join(t.TempDir(), "none")},
		"unknown role":        append([]string{os.Args[0], childArg, "root", "0"}, newKeys(t, 1)...),
		"no key":              {os.Args[0], childArg, "online", "0"},
		"missing key":         {os.Args[0], childArg, "online", "0", filepath.Join(t.TempDir(), "none")},
		"program that is mum": {"/bin/true"},
	} {
		if _, err := signer.Start(t.Context(), argv, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: it started", name)
		}
	}
	if left := childPIDs(t); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
}

func TestServeEndsOnBrokenFrames(t *testing.T) {
	cfg := signer.Config{Role: signer.Online, Keys: newKeys(t, 1), Now: time.Now}
	for name, in := range map[string][]byte{
		"too long":  binary.BigEndian.AppendUint32(nil, 1<<31),
		"cut":       append(binary.BigEndian.AppendUint32(nil, 10), '{'),
		"not JSON":  append(binary.BigEndian.AppendUint32(nil, 1), '!'),
		"half head": {0, 0},
	} {
		if err := signer.Serve(t.Context(), cfg, bytes.NewReader(in), io.Discard); err == nil {
			t.Errorf("%s: served", name)
		}
	}
	if err := signer.Serve(t.Context(), cfg, bytes.NewReader(nil), io.Discard); err != nil {
		t.Errorf("an input that ends: %v", err)
	}
}
