package ownership_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/ownership"
	"livemend.dev/livemend/author/refusal"
)

func compile(t *testing.T, text string) []*object.Object {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(authortest.Objects(t, authortest.Files{"a.c": text}, authortest.Sections()...), "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.Read("a.o", data)
	if err != nil {
		t.Fatal(err)
	}
	return []*object.Object{o}
}

// A reader shares its table with the header that it was given.
const source = `
	#include <stdlib.h>
	#include <string.h>
	struct header { char *table; int n; };
	struct reader { struct header *h; char *table; int own; };
	void log_line(const char *s);
	void reader_free(struct reader *r) { if (r->own) free(r->table); free(r); }
	void header_free(struct header *h) { free(h->table); free(h); }
	void set_table(struct reader *r, struct header *h) { r->h = h; r->table = h->table; r->own = 0; }
	int get(struct reader *r, int i) { return i <= r->h->n ? r->table[i] : 0; }
	__attribute__((noinline)) static void drop(char *p) { memset(p, 0, 4); free(p); }
	int parse(const char *s) { char *p = strdup(s); int n = atoi(p); if (n < 0) return -1; drop(p); return n; }
	int scan(const char *s) { return atoi(s) * 2 + 1; }
`

func TestCheck(t *testing.T) {
	const (
		shared = "r->table = h->table; r->own = 0;"
		copied = "r->table = malloc(h->n); memcpy(r->table, h->table, h->n); r->own = 1;"
	)
	for _, c := range []struct {
		name  string
		edits []string // pairs of old and new
		place string
		says  []string
	}{
		{name: "a limit", edits: []string{"i <= r->h->n", "i < r->h->n"}},
		{name: "a leak", edits: []string{"if (n < 0) return -1;", "if (n < 0) { drop(p); return -1; }"}},
		{name: "a leak in what frees itself", edits: []string{"if (n < 0) return -1;", "if (n < 0) { free(p); return -1; }"}},
		{name: "a limit beside what frees as before", edits: []string{"i <= r->h->n", "i < r->h->n", "free(h->table); free(h);", "log_line(h->table); free(h->table); free(h);"}},
		{name: "more places that free", edits: []string{"free(h->table); free(h);", "if (h->n > 9) { free(h->table); log_line(\"x\"); } else free(h->table); free(h);",
			"if (r->own) free(r->table); free(r);", "if (r->own) free(r->table); if (r->own > 1) { log_line(\"y\"); free(r); return; } free(r); log_line(\"z\");"}},
		{name: "inlined where it was called", edits: []string{"__attribute__((noinline)) static void drop", "static inline __attribute__((always_inline)) void drop",
			"n < 0", "n <= 0", "if (r->own) free", "if (r->own > 1) free"}},
		{name: "a part becomes a function", edits: []string{"n < 0", "n <= 0",
			"void header_free(struct header *h) { free(h->table); free(h); }",
			"__attribute__((noinline)) static void clear(struct header *h, int n) { if (n) free(h->table); free(h); }\n void header_free(struct header *h) { clear(h, 1); log_line(\"x\"); }",
			"if (r->own) free", "if (r->own > 1) free"}},
		{name: "a part becomes a function that others call", edits: []string{"n < 0", "n <= 0",
			"void header_free(struct header *h) { free(h->table); free(h); }",
			"__attribute__((noinline)) static void clear(struct header *h, int n) { if (n) free(h->table); free(h); }\n void header_free(struct header *h) { log_line(h->table); }\n void other(struct header *h) { clear(h, 1); log_line(\"x\"); }",
			"if (r->own) free", "if (r->own > 1) free"}, place: "clear, header_free, reader_free"},
		{name: "what frees moves to another function", edits: []string{"free(h->table); free(h);", "free(h->table);", "return atoi(s) * 2 + 1;", "free((void *)s); return 1;"},
			place: "header_free, scan"},
		{name: "a copy beside a function that frees nothing", edits: []string{shared, copied, "i <= r->h->n", "i < r->h->n"}},
		{name: "two limits beside what frees", edits: []string{"i <= r->h->n", "i < r->h->n", "n < 0", "n <= 0"}},
		{name: "a copy and its end", edits: []string{shared, copied, "if (r->own) free(r->table);", "free(r->table);"},
			place: "reader_free, set_table", says: []string{"set_table refers to malloc 1 instead of 0 times", "reader_free frees (free) and changed"}},
		{name: "a copy and an end elsewhere", edits: []string{shared, copied, "if (r->own) free(r->table);", "", "free(h->table); free(h);", "log_line(h->table); free(h->table); free(h);"},
			place: "header_free, reader_free, set_table", says: []string{"reader_free frees (free) and changed", "header_free frees (free) and changed"}},
		{name: "a new function copies", edits: []string{shared, "r->table = copy(h); r->own = 1;", "if (r->own) free", "free",
			"void log_line", "__attribute__((noinline)) static char *copy(struct header *h) { char *p = malloc(h->n); memcpy(p, h->table, h->n); return p; }\nvoid log_line"},
			place: "copy, reader_free", says: []string{"copy refers to malloc 1 instead of 0 times"}},
		{name: "a static function of the library frees", edits: []string{"drop(p); return n;", "if (n) drop(p); return n + 1;", "return atoi(s) * 2 + 1;", "char *p = strdup(s); return p ? atoi(p) : 3;", "static void drop", "static void drop_free", "drop(p)", "drop_free(p)"},
			place: "drop_free, parse, scan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := source
			for i := 0; i < len(c.edits); i += 2 {
				if !strings.Contains(text, c.edits[i]) {
					t.Fatalf("the case changes nothing with %q", c.edits[i])
				}
				text = strings.ReplaceAll(text, c.edits[i], c.edits[i+1])
			}
			got := ownership.Check(objdiff.Compare(compile(t, source), compile(t, text)))
			if c.place == "" {
				if len(got) > 0 {
					t.Fatalf("refused: %v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Kind != refusal.Ownership || got[0].Place != c.place {
				t.Fatalf("want a refusal at %q, have %v", c.place, got)
			}
			for _, s := range c.says {
				if !strings.Contains(got[0].Reason, s) {
					t.Errorf("it does not say %q: %v", s, got[0])
				}
			}
		})
	}
}

func TestRoleOf(t *testing.T) {
	for name, want := range map[string]ownership.Role{
		"free": ownership.Release, "xmlFreeNode": ownership.Release, "png_free_data": ownership.Release, "g_free": ownership.Release,
		"OPENSSL_free": ownership.Release, "freeaddrinfo": ownership.Release, "xfree": ownership.Release, "g_object_unref": ownership.Release,
		"png_destroy_read_struct": ownership.Release, "tp_dealloc": ownership.Release, "sk_pop_free": ownership.Release,
		"malloc": ownership.Acquire, "xmlMallocAtomic": ownership.Acquire, "strdup": ownership.Acquire, "xmlStrdup": ownership.Acquire,
		"realloc": ownership.Acquire, "png_calloc": ownership.Acquire, "X509_up_ref": ownership.Acquire, "EVP_PKEY_new": ownership.Acquire,
		"": ownership.None, "memcpy": ownership.None, "png_get_prefs": ownership.None, "news_reader": ownership.None, "carefree_": ownership.Release,
		"reference_count": ownership.None, "dupe": ownership.None,
	} {
		if got := ownership.RoleOf(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}
