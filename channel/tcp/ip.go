package tcp

import (
	"strconv"
	"strings"
)

// ip is an address; IPv4 ones stand in the last four bytes.
type ip struct {
	bytes [16]byte
	v4    bool
}

// parseIP reads an address without zone.
func parseIP(s string) (ip, bool) {
	if strings.IndexByte(s, ':') < 0 {
		four, ok := parseIPv4(s)
		a := ip{v4: true}
		copy(a.bytes[12:], four[:])
		return a, ok
	}
	front, back, gap := strings.Cut(s, "::")
	if gap && strings.HasPrefix(back, ":") {
		return ip{}, false
	}
	head, ok1 := parseGroups(front, !gap)
	tail, ok2 := parseGroups(back, true)
	missing := 16 - len(head) - len(tail)
	if !ok1 || !ok2 || missing < 0 || gap != (missing > 0) {
		return ip{}, false
	}
	var a ip
	copy(a.bytes[:], head)
	copy(a.bytes[16-len(tail):], tail)
	return a, true
}

// parseGroups reads groups of up to four hexadecimal digits; the last may be an
// IPv4 address when the address ends there.
func parseGroups(s string, atEnd bool) (out []byte, ok bool) {
	if s == "" {
		return nil, true
	}
	for more := true; more; {
		var group string
		group, s, more = strings.Cut(s, ":")
		if !more && atEnd && strings.IndexByte(group, '.') >= 0 {
			four, ok := parseIPv4(group)
			return append(out, four[:]...), ok
		}
		n, err := strconv.ParseUint(group, 16, 16)
		if err != nil || len(group) > 4 || len(out) >= 16 || group[0] == '+' {
			return nil, false
		}
		out = append(out, byte(n>>8), byte(n))
	}
	return out, true
}

func parseIPv4(s string) (out [4]byte, ok bool) {
	for i := range out {
		part, rest, more := strings.Cut(s, ".")
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || more != (i < 3) || len(part) > 1 && part[0] == '0' || part[0] == '+' {
			return out, false
		}
		out[i], s = byte(n), rest
	}
	return out, true
}
