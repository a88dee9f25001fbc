package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/agent/state"
)

func TestIntent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	same := func(want intent.Record) {
		t.Helper()
		s = reopen(t, s, dir)
		if got := s.Intent(); !reflect.DeepEqual(got, want) {
			t.Errorf("Intent = %+v, want %+v", got, want)
		}
	}
	same(intent.Record{})
	before := intent.Record{Patch: intent.Patch{SHA256: "aa", Level: 1}, Phase: intent.Probation, BootID: "x", Since: 7}
	r := intent.Record{Patch: intent.Patch{SHA256: "bb", Path: "kernel/k/level-2.lmp", BuildID: "k", Level: 2, Module: "livemend_2", ModuleID: "id"},
		Phase: intent.Loading, BootID: "x", Since: 9, Strikes: 1, Before: &before}
	records := []intent.Record{before, r, {Strikes: 1}, before, {}}
	for _, one := range records {
		check(t, s.SetIntent(one))
		same(one)
	}

	// A crash in the middle of a write leaves the record before it.
	check(t, s.SetIntent(before))
	check(t, s.SetIntent(r))
	path := filepath.Join(dir, "intent")
	b, err := os.ReadFile(path)
	check(t, err)
	half := len(b) / 2
	for _, at := range []int{100, half + 100} { // in one slot, then in the other
		torn := append([]byte{}, b...)
		torn[at] ^= 1
		check(t, os.WriteFile(path, torn, 0o600))
		s = reopen(t, s, dir)
		if got := s.Intent(); !reflect.DeepEqual(got, r) && !reflect.DeepEqual(got, before) {
			t.Errorf("with byte %d changed: %+v", at, got)
		}
	}
	check(t, s.Close())
	for _, damage := range [][]byte{nil, b[:half], make([]byte, len(b))} {
		check(t, os.WriteFile(path, damage, 0o600))
		if _, err := state.Open(dir); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("%d bytes of damage: %v, want ErrDamaged", len(damage), err)
		}
	}
}
