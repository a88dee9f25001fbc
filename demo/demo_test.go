package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/demo/show"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/demo/world"
)

func TestMain(m *testing.M) {
	world.MaybeInit()
	os.Exit(m.Run())
}

// programs returns the folder with what make builds: the tests of this package
// run the product's real programs.
func programs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("demo servers need root")
	}
	home := os.Getenv("LIVEMEND_PROGRAMS")
	if home == "" {
		t.Skip("LIVEMEND_PROGRAMS does not name the folder with bin and dist; make test sets it")
	}
	return home
}

// open makes a stage in a folder with a space in its name.
func open(t *testing.T) *stage.Stage {
	t.Helper()
	home := programs(t)
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "with space"))
	if err := os.Mkdir(os.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := stage.Open(stage.Options{Program: filepath.Join(home, "bin", "livemend"), Packages: filepath.Join(home, "dist"), Checkout: checkout(home)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.Logs(t.Output())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestDemonstration is make demo ARGS=--once.
func TestDemonstration(t *testing.T) {
	tr := &tour{stage: open(t), password: rand.Text()}
	var out strings.Builder
	if err := show.Run(t.Context(), &out, tr.steps()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	if !strings.Contains(out.String(), "\nwhitepaper: 29 of 29 steps shown\n") {
		t.Error("not 29 of 29 steps were shown")
	}
}

// TestTwentyNineSteps counts what the whitepaper has.
func TestTwentyNineSteps(t *testing.T) {
	count := map[string]int{}
	for _, s := range (&tour{}).steps() {
		if s.Paper != "" {
			part, _, _ := strings.Cut(s.Paper, " ")
			if part == "part" {
				part = s.Paper[:len("part 1")]
			}
			count[part]++
		}
	}
	if count["part 1"] != 8 || count["part 2"] != 5 || count["arrow"] != 16 || len(count) != 3 {
		t.Errorf("steps of the whitepaper: %v", count)
	}
}

// TestKilledDemonstrationLeavesNothing kills the program in the rudest way
// while everything runs.
func TestKilledDemonstrationLeavesNothing(t *testing.T) {
	home := programs(t)
	tmp := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	program := filepath.Join(tmp, "demo")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, program, "--once", "--program", filepath.Join(home, "bin", "livemend"), "--packages", filepath.Join(home, "dist"))
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := false
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), "longest wait") { // portal, platform, servers and services run
			running = true
			break
		}
	}
	if !running {
		t.Error("the demonstration ended before its servers ran")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the killed demonstration ended well")
	}
	if err := stage.Until(ctx, "its processes are gone", func() (bool, error) { return len(inFolder(t, tmp)) == 0, nil }); err != nil {
		t.Errorf("%v: %v", err, inFolder(t, tmp))
	}
}

// inFolder lists processes that have a folder's name among their arguments or
// in their environment, and so belong to what ran there.
func inFolder(t *testing.T, dir string) []string {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range folders {
		pid, err := strconv.Atoi(filepath.Base(f))
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, name := range []string{"cmdline", "environ"} {
			// A process that ended meanwhile cannot be read, and is gone.
			if text, err := os.ReadFile(filepath.Join(f, name)); err == nil && strings.Contains(string(text), dir) {
				list = append(list, strings.ReplaceAll(string(text), "\x00", " "))
			}
		}
	}
	return list
}
