package userspace

import (
	"errors"
	"strconv"
	"strings"
)

// prot is what a mapping allows, as /proc/PID/maps shows it.
type prot uint8

const (
	protRead prot = 1 << iota
	protWrite
	protExec
	protShared
)

// kind tells the mappings apart that the kernel names itself. A file's path
// cannot imitate one: special mappings have no device and no inode.
type kind uint8

const (
	kindOther kind = iota
	kindFile
	kindAnon
	kindVDSO
	kindStack
	kindHeap
)

// fileKey is the kernel's identity of an open file, the same in every namespace.
type fileKey struct {
	dev   uint64 // major<<32 | minor
	inode uint64
}

// mapping is one line of /proc/PID/maps.
type mapping struct {
	start, end uint64
	off        uint64 // in the file
	prot       prot
	kind       kind
	file       fileKey
}

// name returns where /proc/PID leads to the mapping's file itself.
func (m *mapping) name() string {
	return "map_files/" + strconv.FormatUint(m.start, 16) + "-" + strconv.FormatUint(m.end, 16)
}

// errMaps says that the list of mappings does not fit together: the kernel gives
// it in pieces, and the process maps memory in between.
var errMaps = &busyError{"the kernel's list of its mappings cannot be read"}

// errManyMappings says that a process has more mappings than are looked at.
var errManyMappings = errors.New("it has more mappings than the agent looks at")

// parseMaps reads the content of /proc/PID/maps and appends its lines to ms.
func parseMaps(text []byte, ms []mapping) ([]mapping, error) {
	s := string(text)
	for len(s) > 0 {
		line := s
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			line, s = s[:i], s[i+1:]
		} else {
			s = ""
		}
		m, ok := parseMapping(line)
		if !ok {
			return ms, errMaps
		}
		// Ascending order is what every search below relies on.
		if n := len(ms); n > 0 && m.start < ms[n-1].end {
			return ms, errMaps
		}
		if len(ms) == maxMappings {
			return ms, errManyMappings
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// parseMapping reads one line:
// 7f1200000000-7f1200001000 r-xp 00002000 fe:01 1234    /usr/lib/libx.so.1
func parseMapping(line string) (m mapping, ok bool) {
	var good [7]bool
	m.start, line, good[0] = hexField(line, '-')
	m.end, line, good[1] = hexField(line, ' ')
	if len(line) < 5 || line[4] != ' ' {
		return m, false
	}
	for i, bit := range [...]prot{protRead, protWrite, protExec} {
		if line[i] == "rwx"[i] {
			m.prot |= bit
		}
	}
	if line[3] == 's' {
		m.prot |= protShared
	}
	line = line[5:]
	var major, minor uint64
	m.off, line, good[2] = hexField(line, ' ')
	major, line, good[3] = hexField(line, ':')
	minor, line, good[4] = hexField(line, ' ')
	m.file.inode, line, good[5] = decField(line)
	good[6] = m.start < m.end && major < 1<<32 && minor < 1<<32
	for _, g := range good {
		if !g {
			return m, false
		}
	}
	m.file.dev = major<<32 | minor
	m.kind = kindOf(m, strings.TrimLeft(line, " "))
	return m, true
}

func kindOf(m mapping, name string) kind {
	switch {
	case m.file.inode != 0:
		return kindFile
	case m.file.dev != 0:
		return kindOther
	case name == "" || strings.HasPrefix(name, "[anon:"):
		return kindAnon
	case name == "[vdso]":
		return kindVDSO
	case name == "[heap]":
		return kindHeap
	case name == "[stack]":
		return kindStack
	}
	return kindOther
}

// hexField reads a hexadecimal number that ends with the byte end.
func hexField(s string, end byte) (v uint64, rest string, ok bool) {
	for i := 0; i < len(s) && i <= 16; i++ {
		c := s[i]
		switch {
		case c == end:
			return v, s[i+1:], i > 0
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, "", false
		}
	}
	return 0, "", false
}

// decField reads a decimal number that ends with a blank or the line.
func decField(s string) (v uint64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && s[i] != ' '; i++ {
		if s[i] < '0' || s[i] > '9' || v > (1<<64-10)/10 {
			return 0, "", false
		}
		v = v*10 + uint64(s[i]-'0')
	}
	return v, s[i:], i > 0
}

// find returns the mapping that holds addr, or nil.
func find(ms []mapping, addr uint64) *mapping {
	lo, hi := 0, len(ms)
	for lo < hi {
		if mid := (lo + hi) / 2; ms[mid].end <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(ms) && ms[lo].start <= addr {
		return &ms[lo]
	}
	return nil
}

// hole looks for a place for size bytes from which every address of the library
// [low, high) is within a 32-bit distance, and returns its first address. The
// place nearest to the library wins. One page stays free on both sides, so that
// the kernel does not join the image with a neighbour, and the room into which
// heap and stack grow stays theirs.
func hole(ms []mapping, low, high, size uint64) (addr uint64, ok bool) {
	const (
		page     = 4096
		lowest   = 1 << 20 // below it the kernel may refuse (vm.mmap_min_addr)
		highest  = 1<<47 - 1<<20
		reach    = 1<<31 - 1<<20
		heapRoom = 1 << 30
		stckRoom = 1 << 28
	)
	from, to := uint64(lowest), uint64(highest)
	if high > reach && high-reach > from {
		from = high - reach
	}
	if low+reach < to {
		to = low + reach
	}
	best := uint64(1 << 63)
	prev := uint64(0)
	for i := 0; i <= len(ms); i++ {
		gapLow, gapHigh := prev, uint64(highest)
		if i > 0 && ms[i-1].kind == kindHeap {
			gapLow += heapRoom
		}
		if i < len(ms) {
			prev, gapHigh = ms[i].end, ms[i].start
			if ms[i].kind == kindStack && gapHigh > stckRoom {
				gapHigh -= stckRoom
			}
		}
		gapLow, gapHigh = max(gapLow+page, from), min(gapHigh, to)
		if gapHigh < page || gapLow >= gapHigh-page || gapHigh-page-gapLow < size {
			continue
		}
		// The end of the gap that faces the library.
		at, distance := gapLow, gapLow-min(high, gapLow)
		if gapHigh <= low {
			at = gapHigh - page - size
			distance = low - gapHigh
		}
		if distance < best {
			addr, best, ok = at, distance, true
		}
	}
	return addr &^ (page - 1), ok
}
