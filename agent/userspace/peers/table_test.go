package peers

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Their lists, as they were when ours was made.
const (
	libcareplusCases = `simplest both shared new_func new_var ref_orig_single ref_orig_threads ref_rodata ref_glibc
shared_ref_glibc ref_glibc_data ifunc tls_simple tls_shared frame_finish fail_busy_single fail_busy_single_top
fail_busy_threads fail_coro fail_coro_listed fail_threading fail_unpatch patchlevel execve`
	libpulpCases = `numserv numserv_bsymbolic parameters recursion recursion2 blocked contract deadlock
asunsafe_conversion redzone revert revert_all revert_all_target1 revert_all_target2 revert_and_patch revert_with_invalid
process_revert pagecross terminal syscall_restart hidden memory_protection constructor cancel exception_handling
missing_function access access2 process_access tls buildid libpulp_messages relative_path process livepatchable
manyprocesses stress endbr64 prefix dlsym_lock tempfiles pcqueue comments nolibpulp set_patchable path_disable
user_disable group_disable mprotect_patch seccomp_disable patches insn_queue chroot visibility notes textrel run_libc
glibc_private dlopen`
)

// row is one line of a table on the page.
type row struct{ name, test, text string }

// tables reads the page's tables by the heading above them.
func tables(t *testing.T) map[string][]row {
	t.Helper()
	page, err := os.ReadFile("../../../docs/peer-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	heading, list := "", make(map[string][]row)
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 || strings.HasPrefix(cells[0], "---") || strings.TrimSpace(cells[0]) == "case" {
			continue
		}
		list[heading] = append(list[heading], row{strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])})
	}
	return list
}

var (
	topTest = regexp.MustCompile(`func (Test\w+)\(`)
	subTest = regexp.MustCompile(`t\.Run\("([^"]+)"`)
)

// written returns the tests that the Go files of a folder hold, subtests of the
// first level by the name of the table that they are for.
func written(t *testing.T, dir string) (top, sub []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range topTest.FindAllStringSubmatch(string(text), -1) {
			top = append(top, m[1])
		}
		for _, m := range subTest.FindAllStringSubmatch(string(text), -1) {
			sub = append(sub, m[1])
		}
	}
	return top, sub
}

// TestTables holds docs/peer-cases.md: every name of both lists is there once,
// and nothing else, with a test that exists or a reason.
func TestTables(t *testing.T) {
	pages := tables(t)
	top, sub := written(t, ".")
	for _, list := range []struct{ heading, test, names string }{
		{"libcareplus", "TestLibcareplus", libcareplusCases},
		{"libpulp", "TestLibpulp", libpulpCases},
	} {
		var have []string
		for _, r := range pages[list.heading] {
			have = append(have, r.name)
			if r.text == "" {
				t.Errorf("%s/%s says nothing", list.heading, r.name)
			}
			if r.test == "-" {
				if slices.Contains(sub, r.name) {
					t.Errorf("%s/%s has a test, and the page says that it does not apply", list.heading, r.name)
				}
				continue
			}
			if r.test != list.test+"/"+r.name || !slices.Contains(top, list.test) || !slices.Contains(sub, r.name) {
				t.Errorf("%s/%s: there is no test %s", list.heading, r.name, r.test)
			}
		}
		want := strings.Fields(list.names)
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(want, have) {
			t.Errorf("%s: the page has the cases %q, the list %q", list.heading, have, want)
		}
	}
}

// The page names every attack that is tried, and no other.
func TestAttacksTable(t *testing.T) {
	const name = "TestRedTeam"
	text, err := os.ReadFile("../redteam_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../../docs/peer-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, found := strings.Cut(string(text), "func "+name+"(")
	if !found {
		t.Fatal("there is no " + name)
	}
	body, _, _ = strings.Cut(body, "\n}\n")
	var want []string
	for _, m := range subTest.FindAllStringSubmatch(body, -1) {
		want = append(want, name+"/"+strings.ReplaceAll(m[1], " ", "_"))
	}
	have := regexp.MustCompile(name+`/[^\s,|]+`).FindAllString(string(page), -1)
	if !slices.Equal(want, have) {
		t.Errorf("the page names %q, the tests are %q", have, want)
	}
}
