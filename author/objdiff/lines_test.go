package objdiff_test

import (
	"strings"
	"testing"

	"livemend.dev/livemend/author/objdiff"
)

// The functions stand far down, so that their line numbers do not fit a byte.
// limit, compare and next use the numbers of lines that they stand in.
var checked = strings.Repeat("\n", 200) + `// one
void fail(const char *file, int line, const char *text);
int put(int line, int n), get(int line, int n), seven(int, int, int, int, int, int, int);
#define CHECK(c) do { if (!(c)) fail(__FILE__, __LINE__, #c); } while (0)

int first(int *p) { return p[1] * 3; }

int work(int *p, int n) {
	CHECK(p != 0);
	CHECK(n > 3);
	put(__LINE__, n);
	return p[n];
}
int many(int n) { return seven(n, n, n, n, n, n, __LINE__ + 1000 - 1000) + 1; }
int limit(int n) { return put(215, n) * 5; }
int compare(int n) { return put(__LINE__, n) == 216 ? 9 : 4; }
void mark(int *p) { p[1] = __LINE__; }
int large(int n) { return put(500, n) + 6; }
int next(int n) {
	n += put(222, n);
	return put(1, n) * n;
}
`

// TestLines has changes that look alike: a number in the code is another one.
func TestLines(t *testing.T) {
	t.Parallel()
	const down = "// one\n// two\n// three"
	for _, c := range []struct {
		name    string
		edits   []string // pairs of old and new
		flags   []string
		changed string
	}{
		{name: "all lines move", edits: []string{"// one", down}},
		{name: "some lines move", edits: []string{"\tput(__LINE__, n);", "\n\n\tput(__LINE__, n);"}},
		{name: "a fix above", edits: []string{"return p[1] * 3;", "\n\tif (!p)\n\t\treturn 0;\n\treturn p[1] * 3;\n"}, changed: "first"},
		{name: "a limit beside it", edits: []string{"// one", down, "n > 3", "n > 4"}, changed: "work"},
		{name: "a limit that is compared", edits: []string{"// one", down, "== 216", "== 218"}, changed: "compare"},
		{name: "an argument", edits: []string{"put(500, n)", "put(501, n)"}, changed: "large"},
		{name: "an argument that moves as the lines do", edits: []string{"// one", down, "put(500, n)", "put(502, n)"}, changed: "large"},
		{name: "an argument that was its line", edits: []string{"// one", down, "put(215, n)", "put(99, n)"}, changed: "limit"},
		{name: "an argument that becomes its line", edits: []string{"// one", down, "put(500, n)", "put(220, n)"}, changed: "large"},
		{name: "a line number with something added", edits: []string{"put(__LINE__, n);", "put(__LINE__ + 1, n);"}, changed: "work"},
		{name: "another function at the same shape", edits: []string{"// one", down, "\tput(__LINE__, n);", "\tget(__LINE__, n);"}, changed: "work"},
		{name: "the line number goes elsewhere", edits: []string{"// one", down, "p[1] =", "p[2] ="}, changed: "mark"},
		{name: "an argument that is the next line", edits: []string{"// one", down, "put(222, n)", "put(224, n)"}, changed: "next"},
		{name: "no debug information", edits: []string{"// one", down}, flags: []string{"-g0"}, changed: "compare many mark work"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := checked
			for i := 0; i < len(c.edits); i += 2 {
				if !strings.Contains(text, c.edits[i]) {
					t.Fatalf("the case changes nothing with %q", c.edits[i])
				}
				text = strings.Replace(text, c.edits[i], c.edits[i+1], 1)
			}
			p := objdiff.Compare(compile(t, checked, c.flags...), compile(t, text, c.flags...))[0]
			if got := names(p.Changed); got != c.changed {
				t.Errorf("changed %q, want %q", got, c.changed)
			}
			if noted := strings.Contains(strings.Join(p.Notices, "\n"), "source lines differ"); !noted && !strings.Contains(c.changed, "work") && strings.Contains(c.edits[1], "\n") {
				t.Errorf("the account does not tell: %q", p.Notices)
			}
		})
	}
}
