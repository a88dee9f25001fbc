package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// klpModule compiles something with the tables of a livepatch module, which no
// kernel would load.
func klpModule(t *testing.T, release string) string {
	t.Helper()
	dir := t.TempDir()
	source := `
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; };
static int new_open(void) { return 1; }
static int new_close(void) { return 2; }
struct klp_func funcs[] = { { "vfs_open", new_open, 0 }, { "filp_close", new_close, 1 }, { 0, 0, 0 } };
static const char info[] __attribute__((used, section(".modinfo"))) =
	"livepatch=Y\0license=GPL\0depends=\0name=kpatch_x\0vermagic=` + release + ` SMP preempt mod_unload modversions ";
struct { char head[24]; char name[56]; char rest[80]; } this_module __attribute__((section(".gnu.linkonce.this_module"))) = { .name = "kpatch_x" };
`
	c := filepath.Join(dir, "x.c")
	if err := os.WriteFile(c, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	ko := filepath.Join(dir, "kpatch_x.ko")
	if out, err := exec.Command("gcc", "-c", "-fno-pic", "-mcmodel=kernel", "-O0", "-o", ko, c).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return ko
}

const someBuildID = "12f1e1ca032e499318c5cc64e024d3e617624bf6"

func TestShowModule(t *testing.T) {
	said, err := command(t, "patch", "show", klpModule(t, "6.1.0-47-amd64"))
	want := "module kpatch_x for kernel 6.1.0-47-amd64 (amd64)\n  function filp_close is replaced by 11 bytes\n  function vfs_open is replaced by 11 bytes\n"
	if err != nil || said != want {
		t.Errorf("show says %q, %v, want %q", said, err, want)
	}
}

// packed runs the command and returns the metadata that it wrote.
func packed(t *testing.T, args ...string) map[string]any {
	t.Helper()
	out := t.TempDir()
	all := append([]string{"patch", "pack", "kernel", "--build-id", someBuildID, "--level", "2", "--id", "K-1", "-o", out}, args...)
	if text, err := command(t, all...); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := os.Stat(filepath.Join(out, "K-1.ko")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "K-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all2 struct{ Livemend map[string]any }
	if err := json.Unmarshal(text, &all2); err != nil {
		t.Fatal(err)
	}
	return all2.Livemend
}

// listed returns one field of each entry of a list.
func listed(md map[string]any, list, field string) string {
	var out []string
	for _, x := range md[list].([]any) {
		out = append(out, x.(map[string]any)[field].(string))
	}
	return strings.Join(out, " ")
}

func TestPackModule(t *testing.T) {
	md := packed(t, klpModule(t, "5.14.0-1.el9.x86_64"), "--cve", "CVE-2026-0001,severity=high")
	got := []any{md["release"], md["arch"], md["build_id"], md["kind"], listed(md, "functions", "name"), listed(md, "fixes", "cve")}
	want := []any{"5.14.0-1.el9.x86_64", "amd64", someBuildID, "kernel", "filp_close vfs_open", "CVE-2026-0001"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestPackPackage(t *testing.T) {
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		t.Skip("rpmbuild (package rpm) is not installed, so there is no package to read")
	}
	first, second := klpModule(t, "5.14.0-1.el9.x86_64"), klpModule(t, "5.14.0-2.el9.x86_64")
	if out, err := exec.Command("xz", "-k", second).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := t.TempDir()
	spec := filepath.Join(dir, "x.spec")
	text := `Name: kpatch-patch-5_14_0-1
Version: 1
Release: 2.el9
Summary: Live patches
License: GPLv2
%description
Live patches.
%install
install -D -m 644 ` + first + ` %{buildroot}/usr/lib/kpatch/5.14.0-1.el9.x86_64/kpatch-x.ko
install -D -m 644 ` + second + `.xz %{buildroot}/usr/lib/kpatch/5.14.0-2.el9.x86_64/kpatch-x.ko.xz
%files
/usr/lib/kpatch
%changelog
* Tue Nov 24 2026 Maker <maker@example.com> - 1-2.el9
- fs: an overflow [1234] {CVE-2026-1111}
- net: a race {CVE-2026-2222} {CVE-2026-1111}
`
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+dir, "--define", "__os_install_post %{nil}", "--define", "debug_package %{nil}", spec).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "RPMS/*/*.rpm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %v, %v", found, err)
	}
	for _, release := range []string{"5.14.0-1.el9.x86_64", "5.14.0-2.el9.x86_64"} {
		md := packed(t, found[0], "--release", release, "--distribution", "rhel-9")
		got := []any{md["release"], listed(md, "functions", "name"), listed(md, "fixes", "cve"), listed(md, "fixes", "component")}
		want := []any{release, "filp_close vfs_open", "CVE-2026-1111 CVE-2026-2222", "kernel kernel"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metadata (-want +got):\n%s", diff)
		}
	}
	text2, err := command(t, "patch", "pack", "kernel", found[0], "--build-id", someBuildID, "--level", "2", "--id", "K-1", "-o", t.TempDir())
	if err == nil || !strings.Contains(text2+err.Error(), "several live patches") {
		t.Errorf("two modules and no release: %s, %v", text2, err)
	}
}

// What is no live patch, or fixes nothing, is not packed.
func TestPackRefused(t *testing.T) {
	ko := klpModule(t, "5.14.0")
	plain := filepath.Join(t.TempDir(), "plain.ko")
	data, err := os.ReadFile(ko)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plain, []byte(strings.Replace(string(data), "livepatch=Y", "livepatch=N", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ why, file, more string }{
		{"no live patch", plain, "--cve=CVE-2026-1"},
		{"which vulnerability", ko, "--description=x"},
		{"not for 6.1.0", ko, "--release=6.1.0"},
	} {
		text, err := command(t, "patch", "pack", "kernel", c.file, c.more, "--build-id", someBuildID, "--level", "1", "--id", "K-1", "-o", t.TempDir())
		if err == nil || !strings.Contains(text+err.Error(), c.why) {
			t.Errorf("want %q, have %s, %v", c.why, text, err)
		}
	}
}
