package trust

import (
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestMatchPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"*", "a", true},
		{"*", "a/b", false},
		{"*/*", "a/b", true},
		{"*/*", "a", false},
		{"a", "a", true},
		{"a", "b", false},
		{"a/b", "a/b", true},
		{"*.md", "README.md", true},
		{"*.md", "docs/README.md", false},
		{"*.md", ".md", true},
		{"releases/*/*", "releases/x/x_v1", true},
		{"releases/x/*", "releases/y/x_v1", false},
		{"foo-?.tgz", "foo-2.tgz", true},
		{"foo-?.tgz", "foo-alpha.tgz", false},
		{"foo-?.tgz", "foo-é.tgz", true},
		{"foo-?.tgz", "foo-/.tgz", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"**", "abc", true},
		{"[ab]x", "bx", true},
		{"[ab]x", "cx", false},
		{"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false},
		{"[!a-c]x", "dx", true},
		{"[]]x", "]x", true},
		{"[!]]x", "]x", false},
		{"[a-]x", "-x", true},
		{"[é]x", "éx", true},
		{"[ab", "[ab", true},
		{"[ab", "a", false},
		{"[a/b]", "a", false},
		{"", "a", false},
	} {
		if got := matchPattern(tt.pattern, tt.path); got != tt.want {
			t.Errorf("matchPattern(%q, %q) = %v", tt.pattern, tt.path, got)
		}
	}
}

func TestPatternsThatReadersUnderstandDifferently(t *testing.T) {
	for _, pattern := range []string{"", `a\*`, "[^a]", "a/[^b]", "a\x00", strings.Repeat("a", MaxPath+1)} {
		if validPattern(pattern) {
			t.Errorf("%q is taken for a pattern", pattern)
		}
	}
	for _, pattern := range []string{"*", "a/b", "[!a]", "a^b", "[a^]"} {
		if !validPattern(pattern) {
			t.Errorf("%q is refused", pattern)
		}
	}
}

// TestPatternTakesBoundedTime gives the matcher what makes a careless one take
// exponential time.
func TestPatternTakesBoundedTime(t *testing.T) {
	pattern, text := strings.Repeat("a*", MaxPath/2), strings.Repeat("a", MaxPath-1)+"b"
	start := time.Now()
	for range 100 {
		if !matchPattern(pattern, text) || matchPattern(pattern+"c", text) {
			t.Fatal("wrong result")
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("200 matches took %s", took)
	}
}

// FuzzMatchPattern compares with the standard library where both speak the same
// language.
func FuzzMatchPattern(f *testing.F) {
	f.Add("releases/*/x?[a-z].zip", "releases/1/xyz.zip")
	f.Add("a*b*[!c]", "aabbd")
	f.Add("[]-a]*", "]")
	f.Add("[ab", "[ab")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > MaxPath || len(name) > MaxPath || !validPattern(pattern) {
			return
		}
		got := matchPattern(pattern, name)
		if strings.ContainsAny(pattern, "[]!") || !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return // classes are written differently there, and documents are text
		}
		want, err := path.Match(pattern, name)
		if err != nil {
			t.Fatalf("path.Match(%q): %v", pattern, err)
		}
		if got != want {
			t.Errorf("matchPattern(%q, %q) = %v, path.Match says %v", pattern, name, got, want)
		}
	})
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ name, quoted, stored string }{
		{"role", "role", "role"},
		{"?", "%3F", "%3F"},
		{"#", "%23", "%23"},
		{"/delegatedrole", "%2Fdelegatedrole", "%2Fdelegatedrole"},
		{"../delegatedrole", "..%2Fdelegatedrole", "%2E.%2Fdelegatedrole"},
		{".", ".", "%2E"},
		{"é %41", "%C3%A9%20%2541", "%C3%A9%20%2541"},
		{"a.b-c_d~e", "a.b-c_d~e", "a.b-c_d~e"},
	} {
		if got := QuoteName(tt.name); got != tt.quoted {
			t.Errorf("QuoteName(%q) = %q, want %q", tt.name, got, tt.quoted)
		}
		if got := StoredName(tt.name); got != tt.stored {
			t.Errorf("StoredName(%q) = %q, want %q", tt.name, got, tt.stored)
		}
	}
}
