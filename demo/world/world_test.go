package world

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holderEnv asks the test program to start a server, say its pid and wait to be
// killed.
const holderEnv = "LIVEMEND_WORLD_HOLDER"

func TestMain(m *testing.M) {
	MaybeInit()
	if os.Getenv(holderEnv) != "" {
		hold()
	}
	os.Exit(m.Run())
}

func hold() {
	s, err := Start(context.Background(), Options{Name: "held"})
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(s.PID()) + "\n")
	select {}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("demo servers need root")
	}
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func run(t *testing.T, s *Server, name string, args ...string) string {
	t.Helper()
	out, err := s.Run(t.Context(), nil, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestServersAreApart(t *testing.T) {
	needRoot(t)
	mounts := machineMounts(t)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "a file of the machine")
	if err := os.WriteFile(secret, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	one, two := start(t, Options{Name: "one", Hide: []string{wd}}), start(t, Options{Name: "two", Hide: []string{wd}})
	for _, s := range []*Server{one, two} {
		if got := run(t, s, "hostname"); got != s.Name {
			t.Errorf("hostname %q, want %q", got, s.Name)
		}
		if got := run(t, s, "cat", "/etc/machine-id"); got != s.MachineID {
			t.Errorf("machine-id %q, want %q", got, s.MachineID)
		}
		for _, path := range []string{secret, filepath.Join(wd, "world.go")} {
			if _, err := s.Run(t.Context(), nil, "test", "-e", path); err == nil {
				t.Errorf("%s sees %s of the machine", s.Name, filepath.Base(path))
			}
		}
		run(t, s, "sh", "-c", "echo mine > /etc/livemend-world-test && test -c /dev/null && test -r /sys/kernel/notes && dpkg-query -W dpkg")
	}
	if one.MachineID == two.MachineID {
		t.Error("the servers share a machine-id")
	}
	if _, err := os.Stat("/etc/livemend-world-test"); err == nil {
		t.Error("a server wrote to the machine")
	}
	// A process that one starts is seen by one only.
	run(t, one, "sh", "-c", "setsid sleep 98765 >/dev/null 2>&1 </dev/null &")
	waitFor(t, func() bool { return commands(t, one, "sleep") == 1 })
	if n := commands(t, two, "sleep"); n != 0 {
		t.Errorf("server two lists %d processes of server one", n)
	}
	if out := run(t, two, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(out, "98765") {
		t.Errorf("server two sees server one's processes: %s", out)
	}
	if got := machineMounts(t); got != mounts {
		t.Error("the machine's mounts changed")
	}
}

// TestCloseEndsEverything checks that processes go with their server.
func TestCloseEndsEverything(t *testing.T) {
	needRoot(t)
	s := start(t, Options{Name: "short"})
	run(t, s, "sh", "-c", "setsid sleep 87654 >/dev/null 2>&1 </dev/null &")
	inside := namespaceProcesses(t, s.PID())
	if len(inside) < 2 {
		t.Fatalf("processes in the server: %v", inside)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range inside {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d outlived its server", pid)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := s.Run(t.Context(), nil, "true"); !errors.Is(err, ErrEnded) {
		t.Errorf("run in a closed server: %v", err)
	}
}

// TestEndsWithItsStarter kills the starter in the rudest way.
func TestEndsWithItsStarter(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holderEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, err2 := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || err2 != nil {
		t.Fatalf("the holder said %q", line)
	}
	fd, err := pidfd(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the holder ended well though it was killed")
	}
	if !endsWithin(t, fd, 10*time.Second) {
		t.Error("the server outlived the one who started it")
	}
}

func TestCancelKillsTheCommand(t *testing.T) {
	needRoot(t)
	s := start(t, Options{Name: "cancel"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, nil, "sleep", "76543")
		done <- err
	}()
	waitFor(t, func() bool { return commands(t, s, "sleep") == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled command reports success")
	}
	waitFor(t, func() bool { return commands(t, s, "sleep") == 0 })
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", "-x", "a b", "a/b", "ü", strings.Repeat("a", 64)} {
		if s, err := Start(t.Context(), Options{Name: name}); err == nil {
			s.Close()
			t.Errorf("%q was taken as a host name", name)
		}
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat("12 (a b) c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 4711 100 200")
	if err != nil || p != (Process{PID: 12, Start: 4711, Command: "a b) c", Threads: 9}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "1", "1 (", "1 ) (", "x (y) S 1", "1 (y) S"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func commands(t *testing.T, s *Server, name string) int {
	t.Helper()
	list, err := s.Processes()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range list {
		if p.Command == name {
			n++
		}
	}
	return n
}

// namespaceProcesses lists the machine's numbers of all processes in the pid
// namespace of pid.
func namespaceProcesses(t *testing.T, pid int) []int {
	t.Helper()
	want, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid"))
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	var list []int
	for _, l := range links {
		if got, err := os.Readlink(l); err == nil && got == want {
			n, err := strconv.Atoi(strings.Split(l, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, n)
		}
	}
	return list
}

func machineMounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !what() {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
		time.Sleep(2 * time.Millisecond)
	}
}
