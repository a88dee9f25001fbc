package access_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/access"
)

func TestRequire(t *testing.T) {
	tests := []struct {
		name    string
		subject access.Subject
		role    access.Role
		want    error
	}{
		{"viewer sees", access.Subject{Organisation: "o", Role: access.Viewer}, access.Viewer, nil},
		{"viewer does not operate", access.Subject{Organisation: "o", Role: access.Viewer}, access.Operator, access.ErrForbidden},
		{"operator operates", access.Subject{Organisation: "o", Role: access.Operator}, access.Operator, nil},
		{"operator does not administer", access.Subject{Organisation: "o", Role: access.Operator}, access.Admin, access.ErrForbidden},
		{"admin does all", access.Subject{Organisation: "o", Role: access.Admin}, access.Viewer, nil},
		{"no organisation", access.Subject{Role: access.Admin}, access.Viewer, access.ErrForbidden},
		{"nobody", access.Subject{}, access.Viewer, access.ErrForbidden},
		{"an unknown role asked for", access.Subject{Organisation: "o", Role: access.Admin}, "owner", access.ErrForbidden},
		{"an unknown role held", access.Subject{Organisation: "o", Role: "owner"}, access.Viewer, access.ErrForbidden},
		{"one-time password", access.Subject{Organisation: "o", Role: access.Admin, MustChange: true}, access.Viewer, access.ErrChangePassword},
	}
	for _, tt := range tests {
		if err := tt.subject.Require(tt.role); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestPassword(t *testing.T) {
	hash, err := access.HashPassword("correct horse battery", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(hash, "correct") {
		t.Fatal("the hash holds the password")
	}
	for password, want := range map[string]bool{"correct horse battery": true, "correct horse batterz": false, "": false, strings.Repeat("x", 100_000): false} {
		if got, err := access.VerifyPassword(hash, password); err != nil || got != want {
			t.Errorf("VerifyPassword(%.30q) = %v, %v; want %v", password, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "$argon2i$v=19$m=1,t=1,p=1$AAAA$AAAA", strings.Replace(hash, "m=19456", "m=99999999", 1),
		strings.Replace(hash, "v=19", "v=18", 1), hash[:len(hash)-2], strings.Replace(hash, "t=2", "t=0", 1)} {
		if ok, err := access.VerifyPassword(bad, "correct horse battery"); ok || err == nil {
			t.Errorf("VerifyPassword with hash %q = %v, %v; want an error", bad, ok, err)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for password, ok := range map[string]bool{"elevenchars": false, "twelve chars": true, "äöüäöüäöüäöü": true, "äöüäöüäöüäö": false,
		strings.Repeat("x", 200): true, strings.Repeat("x", 201): false} {
		if err := access.CheckPassword(password); (err == nil) != ok {
			t.Errorf("CheckPassword(%.20q) = %v", password, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		password, err := access.OneTimePassword(rand.Reader)
		if err != nil || access.CheckPassword(password) != nil || len(password) != 27 {
			t.Fatalf("one-time password %q: %v", password, err)
		}
		token, err := access.NewToken(rand.Reader)
		if err != nil || !strings.HasPrefix(token, access.TokenPrefix) || len(token) < 40 {
			t.Fatalf("token %q: %v", token, err)
		}
		if seen[password] || seen[token] || access.HashSecret(token) == token {
			t.Fatal("a secret came twice, or is its own hash")
		}
		seen[password], seen[token] = true, true
	}
}

func TestBucket(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var b access.Bucket
	for i := range access.FreeAttempts {
		if b.Locked(now, access.FreeAttempts) {
			t.Fatalf("locked after %d attempts", i)
		}
		b = b.Failed(now)
	}
	if !b.Locked(now, access.FreeAttempts) || !b.Locked(now.Add(access.ForgiveEvery-1), access.FreeAttempts) {
		t.Fatal("not locked after all free attempts")
	}
	if b.Locked(now.Add(access.ForgiveEvery), access.FreeAttempts) {
		t.Fatal("one attempt is not forgiven in time")
	}
	for range 1000 {
		b = b.Failed(now)
	}
	if b.Locked(now.Add(2*time.Hour), access.FreeAttempts) || b.Drained(now.Add(2*time.Hour)) != (access.Bucket{}) {
		t.Fatal("locked out for more than two hours, or not drained")
	}
	if !b.Locked(now.Add(-time.Hour), access.FreeAttempts) {
		t.Fatal("a clock that goes back opens the lock")
	}
}
