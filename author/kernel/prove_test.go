package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

const provenSource = `
	extern int outside(int), elsewhere(int);
	static int counter, other;
	static const int table[] = { 1, 2, 3 };
	static __attribute__((noinline)) int helper(int x) { counter += x; return outside(x) + table[x & 1]; }
	static __attribute__((noinline)) int second(int x) { other -= x; return outside(x) * table[x & 1]; }
	int entry(int x) { if (x > 5) return helper(x); return elsewhere(x + 7) + second(x); }
	const char *text(void) { return "one"; }
`

// flags are the kernel's code model; the stock module has one section for all.
var flags = []string{"-O2", "-fno-pic", "-mcmodel=kernel", "-g"}

// stockOf makes a module of a source as a distribution does: all functions in one
// section, another object in front.
func stockOf(t *testing.T, text string) *stock {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"front.c": "static __attribute__((noinline)) int helper(int x) { return x; } int front(int x) { return helper(x) + 1; }", "main.c": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"-c", "-O2", "-fno-stack-protector", "-fcf-protection=none", "-o", filepath.Join(dir, name+".o"), filepath.Join(dir, name)}, flags...)
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	ko := filepath.Join(dir, "m.ko")
	if out, err := exec.Command("ld", "-r", "-o", ko, filepath.Join(dir, "front.c.o"), filepath.Join(dir, "main.c.o")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(ko)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readModule("m", data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func objectOf(t *testing.T, text string, more ...string) *object.Object {
	t.Helper()
	all := append(append(authortest.Sections(), "-fno-stack-protector", "-fcf-protection=none"), append(flags, more...)...)
	dir := authortest.Objects(t, authortest.Files{"main.c": text}, all...)
	data, err := os.ReadFile(filepath.Join(dir, "main.o"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.Read("main.o", data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The same source is proven, whatever its sections, and its code tells where
// everything is; another source, callee, variable, text or compiler flag is not.
func TestProve(t *testing.T) {
	s := stockOf(t, provenSource)
	for _, c := range []struct {
		name, old, new, flag, place string
	}{
		{name: "the same"},
		{name: "another number", old: "x + 7", new: "x + 8", place: "entry"},
		{name: "another callee", old: "return outside(x) +", new: "return elsewhere(x) +", place: "helper"},
		{name: "another variable", old: "counter += x", new: "other += x", place: "helper"},
		{name: "another text", old: `"one"`, new: `"two"`, place: "text"},
		{name: "another function", old: "int entry(", new: "int renamed(", place: "renamed"},
		{name: "another compiler flag", flag: "-O0", place: "entry"},
	} {
		o := objectOf(t, strings.Replace(provenSource, c.old, c.new, 1), strings.Fields(c.flag)...)
		p, wrong := prove(s, o)
		if c.place == "" {
			if len(wrong) > 0 || p.proven != 4 {
				t.Errorf("%s: %v, %d functions are proven", c.name, wrong, p.proven)
			}
			for i := range o.Symbols {
				name := o.Symbols[i].Name
				if name != "counter" && name != "other" && name != "helper" && name != "outside" {
					continue
				}
				addr, ok := p.where(i)
				same, _ := s.named(name, addr)
				if !ok || !same {
					t.Errorf("%s is not found", name)
				}
				if name == "helper" {
					if position, ok := s.position(name, addr); !ok || position != 2 {
						t.Errorf("helper has position %d, %v, want the second", position, ok)
					}
				}
			}
			continue
		}
		found := false
		for _, err := range wrong {
			for _, r := range refusal.All(err) {
				found = found || r.Kind == refusal.Foreign && r.Place == "main.o "+c.place
			}
		}
		if !found {
			t.Errorf("%s: %v, want a refusal of %s", c.name, wrong, c.place)
		}
	}
}
