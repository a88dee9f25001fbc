package main

import (
	"bytes"
	"fmt"
	"testing"

	"livemend.dev/livemend/trust"
)

// state is the keys of a role, how many must sign, and who signed; the numbers
// stand for keys.
type state struct {
	keys      []int
	threshold int64
	signed    []int
}

func people(t *testing.T) []signer {
	t.Helper()
	all := make([]signer, 10)
	for i := range all {
		all[i] = newSigner(t, "ed25519")
	}
	return all
}

func pick(all []signer, which []int) []signer {
	var picked []signer
	for _, i := range which {
		picked = append(picked, all[i])
	}
	return picked
}

func TestRootRotation(t *testing.T) {
	five := []int{0, 1, 2, 3, 4}
	swapped := []int{0, 1, 3, 4, 5}
	for _, tt := range []struct {
		name   string
		roots  []state
		accept int // how many of them
	}{
		{"one key for another", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 1}}, {[]int{2}, 1, []int{2}}}, 3},
		{"signatures of strangers beside", []state{{[]int{1}, 1, []int{3, 1, 4}}, {[]int{2}, 1, []int{3, 2, 1, 4}}, {[]int{2}, 1, []int{3, 2, 4}}}, 3},
		{"3 of 5 in changing company", []state{{five, 3, []int{0, 2, 4}}, {five, 3, []int{0, 4, 1}}, {five, 3, []int{0, 1, 3}}, {five, 3, []int{0, 1, 3}}}, 4},
		{"3 of 5, one changed", []state{{five, 3, []int{0, 2, 4}}, {swapped, 3, []int{0, 4, 1}}}, 2},
		{"3 of 5, one changed, in two steps", []state{{five, 3, []int{0, 2, 4}}, {swapped, 3, []int{0, 2, 4, 5}}, {swapped, 3, []int{0, 4, 5}}}, 3},
		{"3 of 5, all changed", []state{{five, 3, []int{0, 2, 4}}, {[]int{5, 6, 7, 8, 9}, 3, []int{0, 2, 4, 5, 6, 7}}, {[]int{5, 6, 7, 8, 9}, 3, []int{5, 6, 7}}}, 3},
		{"threshold 1 to 2 of 3", []state{{[]int{1, 2, 3}, 1, []int{1}}, {[]int{1, 2, 3}, 2, []int{1, 2}}}, 2},
		{"threshold 2 to 1 of 3", []state{{[]int{1, 2, 3}, 2, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1}}}, 3},
		{"a second key is needed", []state{{[]int{1}, 1, []int{1}}, {[]int{1, 2}, 2, []int{1, 2}}}, 2},
		{"old key did not sign", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 3, 4}}}, 1},
		{"new key did not sign", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{1, 3, 4}}}, 1},
		{"too few of the new keys", []state{{five, 3, []int{0, 2, 4}}, {swapped, 3, []int{0, 2, 4}}}, 1},
		{"too few of the old keys", []state{{five, 3, []int{0, 2, 4}}, {swapped, 3, []int{0, 4, 5}}}, 1},
		{"new threshold not reached", []state{{[]int{1, 2, 3}, 1, []int{1}}, {[]int{1, 2, 3}, 2, []int{2}}}, 1},
		{"old threshold not reached", []state{{[]int{1, 2, 3}, 2, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1}}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := people(t)
			r := newRepository(t)
			r.published["root"], r.docs["root"].version = nil, 1
			for _, s := range tt.roots {
				r.grants["root"] = &grant{pick(all, s.keys), s.threshold}
				r.docs["root"].signers = pick(all, s.signed)
				r.publish("root")
			}
			u := started(t, r)
			if status := u.refresh(r); tt.accept == len(tt.roots) {
				u.must(status, 0)
			} else {
				u.refused(status, trust.ErrThreshold)
			}
			if !bytes.Equal(u.stored("root.json"), r.published["root"][tt.accept-1]) {
				t.Errorf("root %d is stored, want %d", u.version("root"), tt.accept)
			}
		})
	}
}

// TestRootsComeOneByOne serves many at once, a repeated and a missing one.
func TestRootsComeOneByOne(t *testing.T) {
	r := newRepository(t)
	u := started(t, r)
	for range 20 {
		r.rotate("timestamp")
		r.publish("root", "timestamp")
	}
	u.must(u.refresh(r), 0)
	u.wantTrusted("root 21", "timestamp 21", "snapshot 1", "targets 1")
	asked := r.requests()
	for i := range 21 {
		if want := fmt.Sprintf("%d.root.json", i+2); asked[i] != want {
			t.Fatalf("request %d is for %s, want %s", i, asked[i], want)
		}
	}
	again := r.published["root"][20]
	r.published["root"] = append(r.published["root"], again)
	u.refused(u.refresh(r), trust.ErrVersion)
	r.docs["root"].version = 23
	r.published["root"][21] = r.sign(r.docs["root"])
	u.refused(u.refresh(r), trust.ErrVersion)
	r.docs["root"].version = 20
	r.published["root"][21] = r.sign(r.docs["root"])
	u.refused(u.refresh(r), trust.ErrRollback)
	if u.version("root") != 21 {
		t.Errorf("root %d is stored, want 21", u.version("root"))
	}
}

func TestRotationOfOtherRoles(t *testing.T) {
	five := []int{0, 1, 2, 3, 4}
	swapped := []int{0, 1, 3, 4, 5}
	for _, tt := range []struct {
		name  string
		state state
		ok    bool
	}{
		{"one key", state{[]int{2}, 1, []int{2}}, true},
		{"signatures of strangers beside", state{[]int{1}, 1, []int{3, 1, 4}}, true},
		{"the key did not sign", state{[]int{2}, 1, []int{1, 3, 4}}, false},
		{"one of three is not of the role", state{swapped, 3, []int{0, 2, 4}}, false},
		{"two of three", state{swapped, 3, []int{0, 4}}, false},
		{"three, first choice", state{five, 3, []int{0, 2, 4}}, true},
		{"three, second choice", state{five, 3, []int{0, 4, 1}}, true},
		{"three, third choice", state{five, 3, []int{0, 1, 3}}, true},
		{"three, fourth choice", state{five, 3, []int{1, 2, 3}}, true},
		{"three, fifth choice", state{five, 3, []int{2, 3, 4}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := people(t)
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				r := newRepository(t)
				u := started(t, r)
				r.grants[role] = &grant{pick(all, tt.state.keys), tt.state.threshold}
				r.docs[role].signers = pick(all, tt.state.signed)
				r.publish("root", "targets", "snapshot", "timestamp")
				status := u.refresh(r)
				if !tt.ok {
					u.refused(status, trust.ErrThreshold)
					if u.version(role) != 0 {
						t.Errorf("%s is stored", role)
					}
					continue
				}
				u.must(status, 0)
				if !bytes.Equal(u.stored(role+".json"), r.published[role][1]) {
					t.Errorf("%s is not stored as it was published", role)
				}
			}
		})
	}
}
