package state_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/wire"
)

func open(t *testing.T, dir string) *state.Store {
	t.Helper()
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reopen is a restart.
func reopen(t *testing.T, s *state.Store, dir string) *state.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyOneAgent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := state.Open(dir); !errors.Is(err, state.ErrInUse) {
		t.Errorf("a second Open = %v, want ErrInUse", err)
	}
	reopen(t, s, dir)
}

func TestKeysAreMadeOnceAndKeptSecret(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Keys(); !errors.Is(err, state.ErrAbsent) {
		t.Errorf("Keys before MakeKeys: %v", err)
	}
	first, err := s.MakeKeys()
	check(t, err)
	again, err := reopen(t, s, dir).MakeKeys()
	check(t, err)
	if !first.Identity.Equal(again.Identity) || first.Channel != again.Channel || first.Channel == [32]byte{} {
		t.Error("the keys changed or are empty")
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && path != dir {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		return err
	})
	check(t, err)
}

func TestEverythingSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	enrolled := state.Enrolment{Server: "http://a:1", SystemID: "S-1", Customer: "Test \"&\" Söhne"}
	check(t, s.SetEnrolment(enrolled))
	check(t, s.SetTrusted(state.DirectorRoot, []byte("root")))
	check(t, s.UseCounter(41))
	var p state.Patch
	for _, object := range []*string{&p.Artifact, &p.Manifest, &p.Targets} {
		var err error
		*object, err = s.PutObject([]byte(strconv.Itoa(len(p.Artifact) + len(p.Manifest))))
		check(t, err)
	}
	p.BuildID, p.Path, p.Level, p.Phase, p.CVEs = "aa", "user/aa/level-3.lmp", 3, state.Staged, []string{"CVE-1"}
	before := p
	before.Level, before.Phase = 2, state.Applied
	p.Previous = &before
	check(t, s.SetPatch(p))
	s = reopen(t, s, dir)
	if got, err := s.Enrolment(); err != nil || got != enrolled {
		t.Errorf("Enrolment = %v, %v", got, err)
	}
	if got, err := s.Trusted(state.DirectorRoot); err != nil || string(got) != "root" {
		t.Errorf("Trusted = %q, %v", got, err)
	}
	if s.LastCounter() != 41 || s.Floor("aa") != 3 || s.Floor("bb") != 0 {
		t.Errorf("counter %d, floors %d and %d", s.LastCounter(), s.Floor("aa"), s.Floor("bb"))
	}
	if got, ok := s.Patch("aa"); !ok || !reflect.DeepEqual(got, p) {
		t.Errorf("Patch = %+v, want %+v", got, p)
	}
	check(t, s.RemovePatch("aa"))
	s = reopen(t, s, dir)
	if s.Floor("aa") != 3 || len(s.Patches()) != 0 {
		t.Error("removing a patch must keep its floor and nothing else")
	}
	if _, err := s.Object(p.Artifact); !errors.Is(err, state.ErrAbsent) {
		t.Errorf("an object that nothing names: %v, want ErrAbsent", err)
	}
}

func TestObjectsAreWhatTheirNameSays(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	name, err := s.PutObject([]byte("content"))
	check(t, err)
	if b, err := s.Object(name); err != nil || string(b) != "content" {
		t.Fatalf("Object = %q, %v", b, err)
	}
	path := filepath.Join(dir, "objects", name)
	check(t, os.WriteFile(path, []byte("cOntent"), 0o600))
	if _, err := s.Object(name); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("a changed object: %v, want ErrDamaged", err)
	}
	if _, err := s.PutObject([]byte("content")); err != nil {
		t.Error(err)
	}
	if b, err := s.Object(name); err != nil || string(b) != "content" {
		t.Errorf("storing again does not repair: %q, %v", b, err)
	}
	for _, bad := range []string{"", "../keys.json", "..", name + "/x"} {
		if _, err := s.Object(bad); !errors.Is(err, state.ErrAbsent) {
			t.Errorf("Object(%q) = %v, want ErrAbsent", bad, err)
		}
	}
}

func TestDamagedStateIsNotUsed(t *testing.T) {
	for _, name := range []string{"counter.json", "patches.json"} {
		dir := t.TempDir()
		s := open(t, dir)
		check(t, s.UseCounter(7))
		check(t, s.SetPatch(state.Patch{BuildID: "aa", Level: 1}))
		check(t, s.Close())
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(`{"counter":`), 0o600))
		if _, err := state.Open(dir); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("%s cut off: Open = %v, want ErrDamaged", name, err)
		}
	}
}

func TestIncompleteFilesAreDropped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	left := filepath.Join(dir, "results", ".new-123")
	check(t, os.WriteFile(left, []byte("half a report"), 0o600))
	if _, err := s.NextResult(); !errors.Is(err, state.ErrAbsent) {
		t.Errorf("half a report counts as one: %v", err)
	}
	reopen(t, s, dir)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a report is kept: %v", err)
	}
}

// The reports come out in the order in which they went in, each until it is
// acknowledged, whatever restarts come between.
func TestResultsAreAQueue(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "state-")
		check(t, err)
		defer os.RemoveAll(dir)
		s, err := state.Open(dir)
		check(t, err)
		defer func() { s.Close() }()
		var want [][]byte
		for n := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"add", "add", "acknowledge", "restart"}).Draw(r, "step") {
			case "add":
				report := []byte("report " + strconv.Itoa(n))
				check(t, s.AddResult(report))
				want = append(want, report)
			case "acknowledge":
				if len(want) > 0 {
					first, err := s.NextResult()
					check(t, err)
					check(t, s.Acknowledge(first))
					want = want[1:]
				}
			case "restart":
				check(t, s.Close())
				s, err = state.Open(dir)
				check(t, err)
			}
			got, err := s.NextResult()
			if len(want) == 0 {
				if !errors.Is(err, state.ErrAbsent) {
					r.Fatalf("NextResult = %q, %v, want none", got.Report, err)
				}
			} else if err != nil || !bytes.Equal(got.Report, want[0]) {
				r.Fatalf("NextResult = %q, %v, want %q", got.Report, err, want[0])
			}
		}
	})
}

func TestResultsHaveALimit(t *testing.T) {
	s := open(t, t.TempDir())
	for n := 0; ; n++ {
		if err := s.ResultRoom(); err != nil {
			if !errors.Is(err, state.ErrFull) || n < 100 {
				t.Errorf("after %d reports: %v", n, err)
			}
			return
		}
		if n > 1000 {
			t.Fatal("reports pile up without a limit")
		}
		check(t, s.AddResult([]byte("x")))
	}
}

// Of levels seen in any order the floor is the highest.
func TestFloorNeverFalls(t *testing.T) {
	s := open(t, t.TempDir())
	highest := int64(0)
	for _, level := range []int64{1, 3, 2, 3, 1, 5, 4} {
		check(t, s.SetPatch(state.Patch{BuildID: "aa", Level: level}))
		if highest = max(highest, level); s.Floor("aa") != highest {
			t.Fatalf("floor %d after level %d, want %d", s.Floor("aa"), level, highest)
		}
	}
}

// A patch in quarantine is on its way off from the moment it is in it, and stays
// in it when its record is gone.
func TestQuarantineSurvives(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	check(t, s.SetPatch(state.Patch{BuildID: "aa", Path: "p", Level: 2, Phase: state.Applied, Artifact: "11"}))
	check(t, s.SetPatch(state.Patch{BuildID: "bb", Path: "q", Level: 1, Phase: state.Applied, Artifact: "22"}))
	q := wire.Quarantined{BuildID: "aa", Path: "p", Level: 2, SHA256: "11", Reason: "process 7 died", Time: 9}
	check(t, s.Quarantine(q))
	check(t, s.Quarantine(wire.Quarantined{BuildID: "aa", SHA256: "11", Reason: "again"}))
	check(t, s.Quarantine(wire.Quarantined{BuildID: "bb", SHA256: "another level"}))
	s = reopen(t, s, dir)
	if got, ok := s.InQuarantine("11"); !ok || got != q || len(s.Quarantines()) != 2 {
		t.Errorf("quarantine: %+v, %v of %d", got, ok, len(s.Quarantines()))
	}
	if a, _ := s.Patch("aa"); a.Phase != state.Reverting {
		t.Errorf("the patch is %s", a.Phase)
	}
	if b, _ := s.Patch("bb"); b.Phase != state.Applied {
		t.Errorf("another artifact is %s", b.Phase)
	}
	check(t, s.RemovePatch("aa"))
	if _, ok := reopen(t, s, dir).InQuarantine("11"); !ok {
		t.Error("it left the quarantine with its record")
	}
}
