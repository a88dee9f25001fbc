package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author/refusal"
)

// diffOf makes the head lines of a diff.
func diffOf(files ...string) string {
	var b strings.Builder
	for i := 0; i < len(files); i += 2 {
		b.WriteString("--- " + files[i] + "\n+++ " + files[i+1] + "\n@@ -1 +1 @@\n-a\n+b\n")
	}
	return b.String()
}

func TestTouched(t *testing.T) {
	for _, c := range []struct {
		name             string
		diff             string
		sources, headers string
		refused          refusal.Kind
	}{
		{name: "a source", diff: diffOf("a/kernel/a.c\t2026-01-01", "b/kernel/a.c"), sources: "kernel/a.c"},
		{name: "sources and a header", diff: diffOf("a/fs/x.c", "b/fs/x.c", "a/fs/x.h", "b/fs/x.h", "a/a.c", "b/a.c"), sources: "a.c fs/x.c", headers: "fs/x.h"},
		{name: "documentation too", diff: diffOf("a/Documentation/x.rst", "b/Documentation/x.rst", "a/a.c", "b/a.c"), sources: "a.c"},
		{name: "another architecture too", diff: diffOf("a/arch/arm64/x.S", "b/arch/arm64/x.S", "a/a.c", "b/a.c"), sources: "a.c"},
		{name: "only documentation", diff: diffOf("a/Documentation/x.rst", "b/Documentation/x.rst"), refused: refusal.Nothing},
		{name: "nothing", diff: "text\n", refused: refusal.Nothing},
		{name: "a new file", diff: diffOf("/dev/null", "b/kernel/new.c"), refused: refusal.Sections},
		{name: "a file goes", diff: diffOf("a/kernel/a.c", "/dev/null"), refused: refusal.Sections},
		{name: "assembler", diff: diffOf("a/arch/x86/entry/entry_64.S", "b/arch/x86/entry/entry_64.S"), refused: refusal.Sections},
		{name: "configuration", diff: diffOf("a/fs/Kconfig", "b/fs/Kconfig"), refused: refusal.Sections},
	} {
		sources, headers, err := touched([]byte(c.diff))
		if got := strings.Join(sources, " "); got != c.sources && c.refused == "" {
			t.Errorf("%s: sources %q, want %q", c.name, got, c.sources)
		}
		if got := strings.Join(headers, " "); got != c.headers && c.refused == "" {
			t.Errorf("%s: headers %q, want %q", c.name, got, c.headers)
		}
		if (err != nil) != (c.refused != "") || err != nil && !refusal.Is(err, c.refused) {
			t.Errorf("%s: %v, want a refusal of kind %q", c.name, err, c.refused)
		}
	}
	for _, bad := range []string{diffOf("a/../../etc/passwd", "b/../../etc/passwd"), diffOf("a//etc/x.c", "b//etc/x.c")} {
		if _, _, err := touched([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestReached(t *testing.T) {
	tree := t.TempDir()
	for name, text := range map[string]string{
		"include/linux/a.h": "", "include/linux/b.h": "#  include <linux/a.h>\n", "fs/one.c": "#include <linux/b.h>\n", "fs/two.c": "#include \"../include/linux/a.h\" // x\n",
		"fs/three.c": "#include <linux/c.h>\n", "fs/a.h": "", "fs/six.c": "#include \"a.h\"\n", "fs/sub/seven.c": "#include \"a.h\"\n", "tools/four.c": "#include <linux/a.h>\n", "arch/arm/five.c": "#include <linux/a.h>\n",
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := reached(tree, []string{"include/linux/a.h"})
	if want := []string{"fs/one.c", "fs/two.c"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("reached = %v, %v, want %v", got, err, want)
	}
	for i := range maxReached + 1 {
		if err := os.WriteFile(filepath.Join(tree, "fs", strings.Repeat("x", i+1)+".c"), []byte("#include <linux/a.h>\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := reached(tree, []string{"include/linux/a.h"}); !refusal.Is(err, refusal.Sections) {
		t.Errorf("a header that reaches far: %v", err)
	}
}

func TestNames(t *testing.T) {
	for id, want := range map[string]string{
		"K-6.1.0-47-1":           "livemend_k_6_1_0_47_1",
		strings.Repeat("A", 100): "livemend_" + strings.Repeat("a", 46),
	} {
		if got := moduleName(id); got != want || len(got) > 55 {
			t.Errorf("moduleName(%q) = %q, want %q", id, got, want)
		}
	}
	for name, want := range map[string]string{
		"__UNIQUE_ID_ddebug412": "__UNIQUE_ID_ddebug.412", "__UNIQUE_ID_ddebug412.3": "__UNIQUE_ID_ddebug412.3", "counter12": "counter12",
	} {
		if got := numbered(name); got != want {
			t.Errorf("numbered(%q) = %q, want %q", name, got, want)
		}
	}
}
