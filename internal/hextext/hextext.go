// Package hextext writes bytes as lower-case hexadecimal and reads exactly that
// form back, so that one value has one spelling.
//
// It exists because the agent cannot afford encoding/hex, which makes all of
// fmt reachable. It must not grow other encodings.
package hextext

const digits = "0123456789abcdef"

// Encode returns b in lower-case hexadecimal.
func Encode(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

// Decode reads lower-case hexadecimal; ok is false for anything else.
func Decode(s string) (b []byte, ok bool) {
	if len(s)%2 != 0 {
		return nil, false
	}
	out := make([]byte, len(s)/2)
	for i := range out {
		hi, ok1 := nibble(s[2*i])
		lo, ok2 := nibble(s[2*i+1])
		if !ok1 || !ok2 {
			return nil, false
		}
		out[i] = hi<<4 | lo
	}
	return out, true
}

// Is reports whether s is exactly n bytes in lower-case hexadecimal.
func Is(s string, n int) bool {
	if len(s) != 2*n {
		return false
	}
	for i := range len(s) {
		if _, ok := nibble(s[i]); !ok {
			return false
		}
	}
	return true
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
