package fixes_test

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/debian"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

//go:embed probes
var probes embed.FS

const (
	allEnv   = "LIVEMEND_TEST_CVES"      // 1: all fixes, not only the quick ones
	workEnv  = "LIVEMEND_TEST_CVES_WORK" // folder to go on in; the default is a fresh one
	aloneEnv = "LIVEMEND_TEST_ALONE"     // set in the namespace that the tests run in
)

// TestMain runs the tests where the machine's own processes cannot be seen: a
// live patch goes into every process that maps the library, and only those that
// the tests start may get one.
func TestMain(m *testing.M) {
	if os.Getenv(aloneEnv) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "a namespace for the tests cannot be made:", err)
		os.Exit(1)
	}
}

// Every fix of the catalogue comes out as it must: refused for the right reason,
// or built, applied to a running program of the distribution, seen at work from
// outside, and taken off again.
func TestFixes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("building in a throw-away root needs root")
	}
	work := os.Getenv(workEnv)
	if work == "" {
		work = t.TempDir()
	}
	for _, f := range catalogue {
		t.Run(f.set+"/"+f.name, func(t *testing.T) {
			if !f.quick && os.Getenv(allEnv) != "1" {
				t.Skip("only the quick ones are built; make test-cves builds all")
			}
			f.check(t, filepath.Join(work, f.set))
		})
	}
}

func (f fix) check(t *testing.T, work string) {
	result, err := f.build(t, work)
	var stage *debian.StageError
	if errors.As(err, &stage) && (stage.Stage == "index" || strings.HasPrefix(stage.Stage, "source-")) {
		t.Skipf("the archive does not offer it any more, or cannot be reached: %v", err)
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
	if f.functions != nil {
		if diff := cmp.Diff(f.functions, names(result)); diff != "" {
			t.Errorf("functions of the patch (-want +got):\n%s", diff)
		}
	}
	f.apply(t, work, result)
}

func (f fix) build(t *testing.T, work string) (*author.Result, error) {
	s := sets[f.set]
	o := debian.Options{
		Package: s.pkg, From: s.from, To: s.to, Library: s.library, Work: work,
		Progress: func(line string) { t.Log(line) },
		Request:  author.Request{ID: "U-" + f.name, Level: 1, Fixes: []patch.Fix{{CVE: patch.CVE(f.name)}}},
	}
	for _, p := range f.patches {
		o.Patches = append(o.Patches, "debian/patches/"+p)
	}
	return debian.Build(t.Context(), o)
}

// names lists the functions of a patch, without their cold parts.
func names(result *author.Result) []string {
	var all []string
	for _, f := range result.Metadata.Functions {
		if !strings.HasSuffix(f.Name, ".cold") {
			all = append(all, f.Name)
		}
	}
	slices.Sort(all)
	return all
}

// apply shows the fix at work in a running program.
func (f fix) apply(t *testing.T, work string, result *author.Result) {
	file, err := image.Decode(result.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	p := f.start(t, stockIn(t, work, result))
	was, is := "vulnerable", "fixed"
	if f.reach != "" {
		was, is = "used", "used"
	}
	p.expect(was)
	p.apply(result, file)
	if f.reach != "" {
		p.reached(file, f.reach)
	}
	p.expect(is)
	p.expect(is)
	p.revert(result, file)
	p.expect(was)
}

// stockIn returns the stock binary that a patch was built for.
func stockIn(t *testing.T, work string, result *author.Result) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(work, "stock", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		base := filepath.Base(file)
		if base == result.Metadata.Target.Library || strings.TrimPrefix(base, "rebuilt-") == result.Metadata.Target.Library {
			return file
		}
	}
	t.Fatalf("no stock binary %s among %v", result.Metadata.Target.Library, found)
	return ""
}

// The page that lists the fixes is the catalogue.
func TestPage(t *testing.T) {
	var rows []string
	for _, f := range catalogue {
		rows = append(rows, f.row())
	}
	authortest.Page(t, filepath.Join("..", "..", "..", "docs", "fixes.md"), rows)
}

func (f fix) row() string {
	s := sets[f.set]
	outcome := "built: " + strings.Join(f.functions, ", ")
	shown := "the program answers otherwise"
	switch {
	case f.refused == refusal.Nothing:
		outcome, shown = "no code in this library", ""
	case f.refused != "":
		outcome, shown = "refused: "+string(f.refused), ""
	case f.reach != "":
		shown = "the new code runs"
	}
	return fmt.Sprintf("| %s | %s %s | %s | %s |", f.name, s.pkg, s.from, outcome, shown)
}
