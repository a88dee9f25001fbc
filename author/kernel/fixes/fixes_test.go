package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/kernel"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/module"
)

const (
	allEnv  = "LIVEMEND_TEST_CVES"      // 1: all fixes, not only the quick ones
	workEnv = "LIVEMEND_TEST_CVES_WORK" // folder to go on in; the default is kept beside the guests' packages
	nobody  = 65534
)

// work is the folder for packages, sources and builds. It is kept: preparing a
// source takes longer than all else.
var work = sync.OnceValues(func() (string, error) {
	dir := os.Getenv(workEnv)
	if dir == "" {
		if os.Getuid() != 0 {
			user, err := os.UserCacheDir()
			if err != nil {
				return "", err
			}
			dir = filepath.Join(user, "livemend-kernel")
		} else {
			dir = "/var/cache/livemend-kernel"
		}
	}
	return dir, os.MkdirAll(dir, 0o755)
})

// Every fix of the catalogue comes out as it must: refused for the right reason,
// or built, loaded into the kernel that it is for, and seen at work there; and
// taken off again.
func TestFixes(t *testing.T) {
	for _, f := range catalogue {
		t.Run(f.name, func(t *testing.T) {
			if !f.quick && os.Getenv(allEnv) != "1" {
				t.Skip("only the quick one is built; make test-cves-kernel builds all")
			}
			f.check(t)
		})
	}
}

func (f fix) check(t *testing.T) {
	result, err := f.build(t)
	if errors.Is(err, kernel.ErrUnavailable) {
		t.Skip(err)
	}
	if f.refused != "" {
		all := refusal.All(err)
		if len(all) == 0 {
			t.Fatalf("not refused: %v", err)
		}
		for _, r := range all {
			t.Log(r)
		}
		if !refusal.Is(err, f.refused) {
			t.Errorf("refused, but not as %s", f.refused)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range result.Account {
		t.Log(line)
	}
	var names []string
	for _, fn := range result.Metadata.Functions {
		names = append(names, fn.Name)
	}
	slices.Sort(names)
	if diff := cmp.Diff(f.functions, names); diff != "" {
		t.Errorf("functions of the patch (-want +got):\n%s", diff)
	}
	f.load(t, result)
}

func (f fix) build(t *testing.T) (*kernel.Result, error) {
	dir, err := work()
	if err != nil {
		t.Fatal(err)
	}
	diff := filepath.Join("diffs", f.diff)
	if f.later != "" {
		if diff, err = f.taken(t, dir); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	return kernel.Build(t.Context(), kernel.Options{
		Release: f.kernel.Release, Diff: diff, Work: dir, ID: "K-" + plain(f.name), Level: 1,
		Fixes: []patch.Fix{{CVE: patch.CVE(strings.Fields(f.name)[0]), Component: "linux"}}, Builder: "test",
		Progress: func(line string) { t.Logf("[%5.1fs] %s", time.Since(began).Seconds(), line) },
	})
}

func plain(name string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune("(' )", c) {
			return '-'
		}
		return c
	}, name)
}

// taken makes the diff of a fix from two versions of the source package.
func (f fix) taken(t *testing.T, dir string) (string, error) {
	old, err := source(t.Context(), dir, f.kernel.Image.Version)
	if err != nil {
		return "", err
	}
	later, err := source(t.Context(), dir, f.later)
	if err != nil {
		return "", err
	}
	to := filepath.Join(t.TempDir(), plain(f.name)+".diff")
	if err := backport(t.Context(), old, later, f.take, to); err != nil {
		t.Fatal(err)
	}
	return to, nil
}

// source returns an unpacked source package.
func source(ctx context.Context, dir, version string) (string, error) {
	series := strings.Join(strings.SplitN(version, ".", 3)[:2], ".")
	tree := filepath.Join(dir, "pristine-"+version)
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	fresh, err := os.MkdirTemp(dir, "pristine-new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	script := `set -eu
apt-get download -q "linux-source-$1=$2" || exit 77
dpkg-deb --fsys-tarfile ./*.deb | tar -xO "./usr/src/linux-source-$1.tar.xz" > archive
mkdir tree
tar -xJf archive -C tree --strip-components=1`
	cmd := exec.CommandContext(ctx, "sh", "-c", script, "source", series, version)
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 77 {
			return "", fmt.Errorf("%w: the source of version %s: %s", kernel.ErrUnavailable, version, out)
		}
		return "", fmt.Errorf("the source of version %s: %w\n%s", version, err, out)
	}
	return tree, os.Rename(filepath.Join(fresh, "tree"), tree)
}

// load shows the fix at work in a guest.
func (f fix) load(t *testing.T, result *kernel.Result) {
	m, err := module.Read(result.Module)
	if err != nil {
		t.Fatal(err)
	}
	c := guest.Config{Kernel: f.kernel, SMP: 1, Files: map[string]string{
		"/bin/probe": guest.Built(t, "livemend.dev/livemend/author/kernel/fixes/probe"),
	}}
	if f.disk {
		c.Disk = guest.Disk(t)
	}
	g := guest.Boot(t, c)
	if file, value, ok := strings.Cut(f.sysctl, "="); ok {
		g.Put("/proc/sys/"+file, []byte(value))
	}
	ask := func(when, want string) {
		t.Helper()
		if f.probe == "" {
			return
		}
		c := guest.Command{Args: []string{"/bin/probe", f.probe}}
		if !f.root {
			c.UID = nobody
		}
		r := g.Run(c)
		if got := strings.TrimSpace(string(r.Stdout)); r.Exit != 0 || got != want {
			t.Fatalf("%s the guest says %q (exit %d, %s), want %q", when, got, r.Exit, r.Stderr, want)
		}
		t.Logf("%s: %s", when, want)
	}
	ask("before", "vulnerable")
	if err := g.Insert(result.Module, ""); err != nil {
		t.Fatalf("loading: %v", err)
	}
	sys := "/sys/kernel/livepatch/" + m.Name
	wait(t, g, sys+"/transition", "0")
	if f.reach != "" {
		r := g.Run(guest.Command{Args: []string{"/bin/probe", "reach", m.Name, f.reach, f.trigger}})
		if r.Exit != 0 {
			t.Fatalf("the new %s does not run: %s%s", f.reach, r.Stdout, r.Stderr)
		}
		t.Logf("%s", r.Stdout)
	}
	ask("patched", "fixed")
	g.Put(sys+"/enabled", []byte("0"))
	wait(t, g, sys+"/transition", "")
	ask("reverted", "vulnerable")
	if log := g.Log(); strings.Contains(log, "BUG:") || strings.Contains(log, "WARNING:") || strings.Contains(log, "Oops") {
		t.Errorf("the guest's kernel complains:\n%s", log)
	}
}

// wait polls a file of the guest until it holds want, or is gone when want is
// empty; sysfs tells nobody when it changes.
func wait(t *testing.T, g *guest.Machine, path, want string) {
	t.Helper()
	limit := time.Now().Add(2 * time.Minute)
	for {
		b, err := g.Get(path)
		if want == "" && err != nil || err == nil && want != "" && strings.TrimSpace(string(b)) == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s is %q (%v), want %q", path, b, err, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// The page that lists the fixes is the catalogue.
func TestPage(t *testing.T) {
	var rows []string
	for _, f := range catalogue {
		rows = append(rows, f.row())
	}
	authortest.Page(t, filepath.Join("..", "..", "..", "docs", "kernel-fixes.md"), rows)
}

func (f fix) row() string {
	from := "our own diff"
	if f.later != "" {
		from = "version " + f.later
	}
	outcome := "built: " + strings.Join(f.functions, ", ")
	shown := "an unprivileged program is answered otherwise"
	switch {
	case f.refused != "":
		outcome, shown = "refused: "+string(f.refused), ""
	case f.reach != "":
		shown = "the new code runs"
	case f.root:
		shown = "a program is answered otherwise"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", f.name, f.kernel.Release, from, outcome, shown, f.note)
}
