package stage

import (
	"os"
	"path/filepath"
	"testing"

	"livemend.dev/livemend/demo/world"
)

func TestMain(m *testing.M) {
	world.MaybeInit()
	os.Exit(m.Run())
}

func open(t *testing.T) *Stage {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Program: program, Packages: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
			t.Errorf("the working folder is left: %v", err)
		}
	})
	return s
}

// TestHosts starts the service on two demo servers and sees it leak.
func TestHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("demo servers need root")
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir()))
	s := open(t)
	if err := s.BuildSample(t.Context()); err != nil {
		t.Fatal(err)
	}
	var hosts []*Host
	for _, name := range []string{"alpha", "beta"} {
		h, err := s.StartHost(t.Context(), name, 3)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		found, err := h.Probe(t.Context())
		if err != nil || !found.Leaked {
			t.Errorf("%s: %+v, %v", h.Name, found, err)
		}
		processes, err := h.Service()
		if err != nil {
			t.Fatal(err)
		}
		eight := 0
		for _, p := range processes {
			if p.Threads == 8 {
				eight++
			}
		}
		if eight != 2 {
			t.Errorf("%s: processes %+v", h.Name, processes)
		}
	}
	if hosts[0].Secret == hosts[1].Secret || hosts[0].Addr == hosts[1].Addr {
		t.Error("the servers share a secret or an address")
	}
}

func TestSweepRemovesWhatWasLeft(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	left := filepath.Join(os.TempDir(), "livemend-demo-123")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	one := open(t)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what a killed demonstration left is still there: %v", err)
	}
	open(t)
	if _, err := os.Stat(one.Dir); err != nil {
		t.Errorf("a running demonstration was removed: %v", err)
	}
}
