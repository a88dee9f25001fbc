package layout_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/layout"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

func objects(t *testing.T, files authortest.Files, flags ...string) []*object.Object {
	t.Helper()
	dir := authortest.Objects(t, files, append(authortest.Sections(), flags...)...)
	var out []*object.Object
	paths, err := filepath.Glob(filepath.Join(dir, "*.o"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		o, err := object.Read(filepath.Base(path), data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

const source = `
	enum color { RED, GREEN, BLUE };
	enum { SMALL = 1, LARGE = 2 };
	typedef enum { ON, OFF } toggle;
	typedef unsigned int number;
	typedef struct { long a, b; } range;
	union slot { long whole; char part[6]; };
	struct node { struct node *next; char name[16]; number flags : 3; struct { short x, y; }; union slot s; range r; char spare; int last; };
	struct calls { int (*open)(int, const char *); void (*close)(void *); };
	enum state { IDLE = 1 } ;
	static int deep(struct node *n) { return n->last; }
	int use(struct node *n, struct calls *c, enum color k, toggle t) {
		if (k == GREEN && t == ON) c->close(n);
		if (n->flags == SMALL) return deep(n->next) + n->x;
		return (int)n->r.b * 3 + n->s.part[1] + LARGE;
	}
	int inner(void *p) { struct local { int a; } *q = p; return q->a; }
	long other(void *p) { struct local { long a, b; } *q = p; return q->b; }
	long cast(void *p) { enum state *s = p; return *s == IDLE; }
`

// TestCheck has one change of a type in each case, beside a change of code.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		place, reason  string // empty when nothing is refused
		once           bool   // nothing else is refused
	}{
		{name: "only code"},
		{name: "an enum value comes last", old: "BLUE }", new: "BLUE, WHITE }"},
		{name: "a nameless enum's value comes last", old: "LARGE = 2", new: "LARGE = 2, HUGE"},
		{name: "a named nameless enum's value comes last", old: "ON, OFF", new: "ON, OFF, BROKEN"},
		{name: "a type of another name for the same", old: "typedef unsigned int number", new: "typedef unsigned num; typedef num number"},
		{name: "long for long long", old: "long whole", new: "long long whole"},
		{name: "a pointer to constants", old: "struct node *next", new: "const struct node *next"},
		{name: "a new type", old: "long cast(", new: "struct fresh { int v; }; long more(struct fresh *f) { return f->v; }\nlong cast("},
		{name: "a type goes", old: "long cast(void *p) { enum state *s = p; return *s == IDLE; }"},
		{name: "an enum value comes in between", old: "RED, GREEN", new: "RED, PINK, GREEN", place: "enum color", reason: "value GREEN changed from 1 to 2"},
		{name: "an enum value goes", old: ", BLUE", place: "enum color", reason: "value BLUE (2) is gone"},
		{name: "an enum grows", old: "BLUE }", new: "BLUE, FAR = 1L << 40 }", place: "enum color", reason: "size changed from 4 to 8"},
		{name: "a nameless enum's value changes", old: "SMALL = 1", new: "SMALL = 4", place: "enum with SMALL", reason: "from 1 to 4"},
		{name: "a named nameless enum's value changes", old: "ON, OFF", new: "OFF, ON", place: "typedef toggle", reason: "value ON changed from 0 to 1", once: true},
		{name: "a member moves", old: "struct node *next; char name[16]", new: "char name[16]; struct node *next", place: "struct node", reason: "member next moved from byte 0 to byte 16"},
		{name: "an array grows", old: "name[16]", new: "name[24]", place: "struct node", reason: "member name was array of 16 x int8 and is array of 24 x int8"},
		{name: "a member at the end", old: "int last;", new: "int last; long more;", place: "struct node", reason: "size changed"},
		{name: "a member in a gap", old: "char spare;", new: "char spare; char gap;", place: "struct node", reason: "member gap at byte 57 is new"},
		{name: "a member goes", old: "char spare;", place: "struct node", reason: "member spare at byte 56 is gone"},
		{name: "a member of another type", old: "struct node *next;", new: "void *next;", place: "struct node", reason: "member next was pointer to struct node and is pointer to void"},
		{name: "a member of another sign", old: "int last", new: "unsigned last", place: "struct node", reason: "member last was int32 and is uint32"},
		{name: "a bit more", old: "flags : 3", new: "flags : 4", place: "struct node", reason: "member flags moved from bit 192 (3 wide) to bit 192 (4 wide)"},
		{name: "a nameless struct inside", old: "short x, y;", new: "short y, x;", place: "struct node", reason: "x at byte 2"},
		{name: "a union", old: "part[6]", new: "part[7]", place: "union slot", reason: "member part"},
		{name: "a typedef's struct", old: "long a, b;", new: "long b, a;", place: "typedef range", reason: "member a moved"},
		{name: "a typedef", old: "typedef unsigned int number", new: "typedef unsigned short number", place: "typedef number", reason: "it was uint32 and is uint16"},
		{name: "arguments through a pointer", old: "(*open)(int,", new: "(*open)(long,", place: "struct calls", reason: "member open"},
		{name: "one of two types of a name", old: "long a, b; } *q", new: "long b, a; } *q", place: "struct local", reason: "member a"},
		{name: "a type known by a cast alone", old: "IDLE = 1", new: "IDLE = 2", place: "enum state", reason: "IDLE changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(source, "* 3", "* 5", 1)
			if c.old != "" {
				if !strings.Contains(text, c.old) {
					t.Fatal("the case changes nothing")
				}
				text = strings.Replace(text, c.old, c.new, 1)
			}
			got := layout.Check(objdiff.Compare(objects(t, authortest.Files{"a.c": source}), objects(t, authortest.Files{"a.c": text})))
			if c.place == "" {
				if len(got) > 0 {
					t.Fatalf("refused: %v", got)
				}
				return
			}
			expect(t, got, c.place, c.reason)
			if c.once && len(got) != 1 {
				t.Errorf("one change is refused %d times: %v", len(got), got)
			}
		})
	}
}

func expect(t *testing.T, got []*refusal.Error, place, reason string) {
	t.Helper()
	for _, r := range got {
		if r.Kind == refusal.Layout && r.Place == place && strings.Contains(r.Reason, reason) {
			return
		}
	}
	t.Fatalf("want a refusal at %q for %q, have %v", place, reason, got)
}

const user = `
	#include "t.h"
	int NAME(struct t *p) { return p->b * 7; }`

func library(header string, names ...string) authortest.Files {
	f := authortest.Files{"t.h": header}
	for _, n := range names {
		f[n+".c"] = strings.NewReplacer("NAME", n, `#include "t.h"`, header).Replace(user)
	}
	delete(f, "t.h")
	return f
}

func TestCheckManyObjects(t *testing.T) {
	t.Parallel()
	const header, moved = "struct t { int a, b; };", "struct t { int a, c, b; };"
	before := objects(t, library(header, "one", "two"))
	t.Run("one refusal for all", func(t *testing.T) {
		got := layout.Check(objdiff.Compare(before, objects(t, library(moved, "one", "two"))))
		expect(t, got, "struct t", "(in one.o, two.o)")
		if len(got) != 1 {
			t.Errorf("refused %d times: %v", len(got), got)
		}
	})
	t.Run("different changes are kept apart", func(t *testing.T) {
		after := library(moved, "one")
		after["two.c"] = library("struct t { long b; int a; };", "two")["two.c"]
		got := layout.Check(objdiff.Compare(before, objects(t, after)))
		expect(t, got, "struct t (one.o)", "moved from byte 4 to byte 8")
		expect(t, got, "struct t (two.o)", "moved from byte 4 to byte 0")
	})
	t.Run("a new object with another idea", func(t *testing.T) {
		after := library(header, "one", "two")
		after["one.c"] = strings.Replace(after["one.c"], "* 7", "* 9", 1)
		after["three.c"] = library(moved, "three")["three.c"]
		expect(t, layout.Check(objdiff.Compare(before, objects(t, after))), "struct t", "(in three.o)")
	})
	t.Run("a new object with the same idea", func(t *testing.T) {
		after := library(header, "one", "two", "three")
		after["one.c"] = strings.Replace(after["one.c"], "* 7", "* 9", 1)
		if got := layout.Check(objdiff.Compare(before, objects(t, after))); len(got) > 0 {
			t.Errorf("refused: %v", got)
		}
	})
	t.Run("an object that did not change", func(t *testing.T) {
		if got := layout.Check(objdiff.Compare(before, objects(t, library(header, "one", "two"), "-g0"))); len(got) > 0 {
			t.Errorf("refused: %v", got)
		}
	})
}

func TestCheckNeedsTypes(t *testing.T) {
	t.Parallel()
	after := strings.Replace(source, "* 3", "* 5", 1)
	asm := "\nasm(\".section .text.spin,\\\"ax\\\",@progbits; .globl spin; .type spin,@function; spin: mov $7,%eax; ret; .size spin,.-spin; .text\");\n"
	for _, c := range []struct {
		name, flag    string
		extra, after  string // source that both have, and the new build alone
		place, reason string
	}{
		{name: "none", flag: "-g0", place: "debug information", reason: "build with -g"},
		{name: "lines only", flag: "-g1", place: "debug information", reason: "no types"},
		{name: "in another file", flag: "-gsplit-dwarf", place: "debug information", reason: "-gsplit-dwarf"},
		{name: "in pieces", flag: "-fdebug-types-section", place: "debug information", reason: "-fdebug-types-section"},
		{name: "code that it does not describe", flag: "-g", extra: asm, place: "function spin", reason: "does not describe"},
		{name: "new code that it does not describe", flag: "-g", after: asm, place: "function spin", reason: "does not describe"},
		{name: "an older form", flag: "-gdwarf-4"},
		{name: "compressed", flag: "-gz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pairs := objdiff.Compare(objects(t, authortest.Files{"a.c": source + c.extra}, c.flag),
				objects(t, authortest.Files{"a.c": after + strings.Replace(c.extra, "$7", "$8", 1) + c.after}, c.flag))
			got := layout.Check(pairs)
			if c.place == "" {
				if len(got) > 0 {
					t.Fatalf("refused: %v", got)
				}
				moved := strings.Replace(after, "long a, b;", "long b, a;", 1)
				got = layout.Check(objdiff.Compare(objects(t, authortest.Files{"a.c": source}, c.flag), objects(t, authortest.Files{"a.c": moved}, c.flag)))
				c.place, c.reason = "typedef range", "member a moved"
			}
			expect(t, got, c.place, c.reason)
		})
	}
}
