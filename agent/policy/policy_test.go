package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"livemend.dev/livemend/agent/policy"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want policy.Policy
	}{
		{`{}`, policy.Default()},
		{`{"apply":false}`, policy.Policy{Scanners: []string{"openscap"}}},
		{`{"kernel_nudge_seconds":5,"kernel_force":true}`, policy.Policy{Apply: true, Scanners: []string{"openscap"}, KernelNudge: 5 * time.Second, KernelForce: true}},
		{`{"scanners":[],"deny":["a","b"]}`, policy.Policy{Apply: true, Scanners: []string{}, Deny: []string{"a", "b"}}},
	} {
		if got, err := policy.Parse([]byte(tt.in)); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Parse(%s) = %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{``, `[]`, `{"apply":1}`, `{"aply":false}`, `{"scanners":"openscap"}`, `{"deny":[],"deny":[]}`, `{"kernel_nudge_seconds":-1}`, `{"kernel_nudge_seconds":3601}`, `{"kernel_force":1}`} {
		got, err := policy.Parse([]byte(bad))
		if !errors.Is(err, policy.ErrPolicy) {
			t.Errorf("Parse(%s) = %v, want ErrPolicy", bad, err)
		}
		if got.AllowsPatch("x", "y") == nil || got.AllowsScanner("openscap") == nil {
			t.Errorf("Parse(%s) failed and still allows something", bad)
		}
	}
}

func TestAllows(t *testing.T) {
	p := policy.Policy{Apply: true, Scanners: []string{"openscap"}, Deny: []string{"user/aa/level-1.lmp", "bb"}}
	for _, tt := range []struct {
		path, buildID string
		want          error
	}{
		{"user/cc/level-1.lmp", "cc", nil},
		{"user/aa/level-1.lmp", "aa", policy.ErrDenied},
		{"user/aa/level-2.lmp", "aa", nil},
		{"user/bb/level-9.lmp", "bb", policy.ErrDenied},
	} {
		if err := p.AllowsPatch(tt.path, tt.buildID); !errors.Is(err, tt.want) {
			t.Errorf("AllowsPatch(%s, %s) = %v, want %v", tt.path, tt.buildID, err, tt.want)
		}
	}
	if p.AllowsScanner("openscap") != nil || p.AllowsScanner("nmap") == nil {
		t.Error("wrong scanners allowed")
	}
}

func TestLoadWantsARootOwnedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.json")
	if got, err := policy.Load(path); err != nil || !reflect.DeepEqual(got, policy.Default()) {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(`{"apply":false}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := policy.Load(path); err != nil || got.Apply {
		t.Errorf("Load = %+v, %v", got, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(path); !errors.Is(err, policy.ErrPolicy) {
		t.Errorf("a file that everybody may write: %v, want ErrPolicy", err)
	}
	if _, err := policy.Load(dir); !errors.Is(err, policy.ErrPolicy) {
		t.Errorf("a folder: %v, want ErrPolicy", err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: a file of another user was not tried")
		return
	}
	if err := errors.Join(os.Chmod(path, 0o644), os.Chown(path, 65534, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(path); !errors.Is(err, policy.ErrPolicy) {
		t.Errorf("a file of another user: %v, want ErrPolicy", err)
	}
}
