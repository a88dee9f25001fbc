package trust

import (
	"strings"
	"unicode/utf8"
)

// validPattern reports whether a path pattern means the same to every reader.
// Refused are an escape by backslash and a class that begins with ^, which
// shells and libraries understand differently: with a terminating delegation
// behind it, not to match would hand the path to somebody else.
func validPattern(pattern string) bool {
	return pattern != "" && len(pattern) <= MaxPath &&
		!strings.ContainsAny(pattern, "\\\x00") && !strings.Contains(pattern, "[^")
}

// matchPattern reports whether a path matches a pattern of the TUF
// specification 4.5: * stands for any characters, ? for one, [a-z] and [!a-z]
// for one of a class; none of them stands for a slash.
func matchPattern(pattern, path string) bool {
	for {
		p, patternRest, patternMore := strings.Cut(pattern, "/")
		s, pathRest, pathMore := strings.Cut(path, "/")
		if patternMore != pathMore || !matchSegment(p, s) {
			return false
		}
		if !patternMore {
			return true
		}
		pattern, path = patternRest, pathRest
	}
}

// matchSegment takes at most len(pattern)*len(s) steps: only the last star is
// ever tried again.
func matchSegment(pattern, s string) bool {
	star, retry := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, retry = p, i
			p++
			continue
		}
		if width, size, ok := matchOne(pattern[p:], s[i:]); ok {
			p += width
			i += size
			continue
		}
		if star < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(s[retry:])
		retry += size
		p, i = star+1, retry
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne compares the first element of a pattern, which is no star, with the
// first character of s. It returns the length of both.
func matchOne(pattern, s string) (width, size int, ok bool) {
	if pattern == "" {
		return 0, 0, false
	}
	c, size := utf8.DecodeRuneInString(s)
	switch pattern[0] {
	case '?':
		return 1, size, true
	case '[':
		if end := classEnd(pattern); end > 0 {
			return end + 1, size, inClass(pattern[1:end], c)
		}
		// Without its end it is a character like others.
	}
	want, width := utf8.DecodeRuneInString(pattern)
	return width, size, want == c
}

// classEnd returns where the class that pattern begins with ends, 0 when it
// does not. A bracket that comes first in the class belongs to it.
func classEnd(pattern string) int {
	from := 1
	if strings.HasPrefix(pattern[from:], "!") {
		from++
	}
	if strings.HasPrefix(pattern[from:], "]") {
		from++
	}
	if n := strings.IndexByte(pattern[from:], ']'); n >= 0 {
		return from + n
	}
	return 0
}

func inClass(class string, c rune) bool {
	class, not := strings.CutPrefix(class, "!")
	in := false
	for class != "" {
		first, n := utf8.DecodeRuneInString(class)
		class = class[n:]
		last := first
		if len(class) > 1 && class[0] == '-' {
			last, n = utf8.DecodeRuneInString(class[1:])
			class = class[1+n:]
		}
		if first <= c && c <= last {
			in = true
		}
	}
	return in != not
}
