package kernel_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author/kernel"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/patch"
)

const (
	allEnv  = "LIVEMEND_TEST_CVES" // 1: build; it takes minutes
	workEnv = "LIVEMEND_TEST_CVES_WORK"
)

// edit is a change of a source: the text that a line holds, and what stands in
// its place.
type edit struct{ file, old, new string }

// What a running kernel could be harmed by is refused, for the reason that it is.
func TestRefusals(t *testing.T) {
	if os.Getenv(allEnv) != "1" {
		t.Skip("it builds for minutes; make test-cves-kernel does it")
	}
	work := os.Getenv(workEnv)
	if work == "" {
		work = "/var/cache/livemend-kernel"
	}
	for _, c := range []struct {
		name  string
		edits []edit
		kind  refusal.Kind
		says  string
	}{
		{"start-up code", []edit{{"kernel/ksysfs.c", "error = -ENOMEM;", "error = -EBUSY;"}}, refusal.Initialiser, ".init.text"},
		{"a variable's first value", []edit{{"kernel/panic.c", "int panic_on_warn __read_mostly;", "int panic_on_warn __read_mostly = 1;"}}, refusal.Data, "panic_on_warn"},
		{"a new variable that holds something", []edit{{"kernel/ptrace.c", "	const struct cred *cred = current_cred(), *tcred;", "	const struct cred *cred = current_cred(), *tcred;\n	static int seen;\n\n	if (seen++ > 5)\n		return -EPERM;"}}, refusal.Data, "seen"},
		{"a structure", []edit{{"fs/eventfd.c", "	unsigned int flags;", "	unsigned long more;\n	unsigned int flags;"}}, refusal.Layout, "struct eventfd_ctx"},
		{"what is exported", []edit{{"kernel/ptrace.c", "EXPORT_SYMBOL_GPL(task_user_regset_view);", "EXPORT_SYMBOL_GPL(task_user_regset_view);\nEXPORT_SYMBOL_GPL(ptrace_may_access);"}}, refusal.Symbol, "ptrace_may_access"},
		{"code without tracing", []edit{{"arch/x86/entry/common.c", "	nr = syscall_enter_from_user_mode(regs, nr);", "	nr = syscall_enter_from_user_mode(regs, nr);\n\tif (nr == 1234)\n\t\tnr = -1;"}}, refusal.Sections, ".noinstr.text"},
		{"nothing but a comment", []edit{{"kernel/ptrace.c", "	/* Don't let security modules deny introspection */", "	/* Modules must not deny this. */"}}, refusal.Nothing, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := kernel.Build(t.Context(), kernel.Options{
				Release: guest.Debian61.Release, Diff: edited(t, work, c.edits), Work: work, ID: "K-refused", Level: 1,
				Fixes: []patch.Fix{{CVE: "CVE-2026-1"}}, Builder: "test",
			})
			if errors.Is(err, kernel.ErrUnavailable) {
				t.Skip(err)
			}
			all := refusal.All(err)
			for _, r := range all {
				t.Log(r)
			}
			if !refusal.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want a refusal of kind %s that says %q", err, c.kind, c.says)
			}
		})
	}
}

// A change of a header that reaches a few objects is followed into all of them.
func TestHeader(t *testing.T) {
	if os.Getenv(allEnv) != "1" {
		t.Skip("it builds for minutes; make test-cves-kernel does it")
	}
	work := os.Getenv(workEnv)
	if work == "" {
		work = "/var/cache/livemend-kernel"
	}
	change := []edit{{"ipc/util.h", "	return ipcid_to_seqx(id) != ipcp->seq;", "	return id == 0x7ffffff1 || ipcid_to_seqx(id) != ipcp->seq;"}}
	result, err := kernel.Build(t.Context(), kernel.Options{
		Release: guest.Debian61.Release, Diff: edited(t, work, change), Work: work, ID: "K-header", Level: 1,
		Fixes: []patch.Fix{{CVE: "CVE-2026-1"}}, Builder: "test",
	})
	if errors.Is(err, kernel.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range result.Metadata.Functions {
		names = append(names, f.Name)
	}
	// The change is in an inline function of the header; these two hold it.
	if want := []string{"ipc_obtain_object_check", "ipcctl_obtain_check"}; !slices.Equal(names, want) {
		t.Errorf("functions %v, want %v", names, want)
	}
}

// edited writes a diff of the prepared source.
func edited(t *testing.T, work string, edits []edit) string {
	t.Helper()
	sources, err := filepath.Glob(filepath.Join(work, "source-"+guest.Debian61.Release+"_*"))
	if err != nil || len(sources) != 1 {
		t.Skipf("the source is not prepared yet; the test of the fixes does it (%v, %v)", sources, err)
	}
	files := map[string]string{}
	var diff strings.Builder
	for _, e := range edits {
		if files[e.file] == "" {
			text, err := os.ReadFile(filepath.Join(sources[0], e.file))
			if err != nil {
				t.Fatal(err)
			}
			files[e.file] = string(text)
		}
		if !strings.Contains(files[e.file], e.old) {
			t.Fatalf("%s has no line %q", e.file, e.old)
		}
		files[e.file] = strings.Replace(files[e.file], e.old, e.new, 1)
	}
	dir := t.TempDir()
	for file, text := range files {
		now := filepath.Join(dir, "now.c")
		if err := os.WriteFile(now, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("diff", "-U3", "--label", "a/"+file, "--label", "b/"+file, filepath.Join(sources[0], file), now).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		diff.Write(out)
	}
	path := filepath.Join(dir, "fix.diff")
	if err := os.WriteFile(path, []byte(diff.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
