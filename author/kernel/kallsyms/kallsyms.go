// Package kallsyms reads the table of symbols that a kernel image carries for
// itself. It is the very table in which the kernel's livepatch code looks up
// what a live patch names, in the same order, and distributions ship no other:
// their System.map is a stub. Reading it from the image needs no guest to boot.
//
// The table has no header. Its parts are found by what they must look like, and
// everything is checked against everything else, so that a table in a form that
// is not known is an error and never a wrong answer. The package is pure.
package kallsyms

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Limits on a table.
const (
	maxSymbols = 2_000_000
	maxName    = 512 // bytes, with the letter of the type
)

// ErrTable is wrapped when no table can be read.
var ErrTable = errors.New("the kernel image holds no table of symbols that can be read")

// Symbol is one entry. The order of entries is the kernel's, by rising address.
type Symbol struct {
	Name string
	Type byte   // as nm shows it: upper case for what other objects can name
	Addr uint64 // of variables for each processor, the offset in their area
}

// Global reports whether other objects can name the symbol.
func (s Symbol) Global() bool { return s.Type >= 'A' && s.Type <= 'Z' }

// Read finds and reads the table in the loaded bytes of a kernel image.
func Read(image []byte) ([]Symbol, error) {
	for from := 0; ; {
		at := bytes.Index(image[from:], digits)
		if at < 0 {
			return nil, ErrTable
		}
		from += at + 1
		t, ok := tokensAt(image, from-1)
		if !ok {
			continue
		}
		if list, ok := t.symbols(image); ok {
			return list, nil
		}
	}
}

// Every digit stands for itself among the tokens, since names hold all of them.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

const tokenCount = 256

// tokens are the texts that bytes of compressed names stand for.
type tokens struct {
	text       [tokenCount]string
	start, end int // of the texts and of the index behind them
}

// tokensAt reads the tokens when the one for '0' is at offset zero.
func tokensAt(image []byte, zero int) (*tokens, bool) {
	// From '0' to the last token, then the index, which tells where they start.
	at, offsets := zero, [tokenCount]int{}
	for i := '0'; i < tokenCount; i++ {
		n := textLength(image, at)
		if n < 0 {
			return nil, false
		}
		offsets[i] = at
		at += n + 1
	}
	for _, align := range []int{8, 4} {
		index := (at + align - 1) / align * align
		if index+2*tokenCount > len(image) {
			continue
		}
		entry := func(i int) int { return int(binary.LittleEndian.Uint16(image[index+2*i:])) }
		t := &tokens{start: zero - entry('0'), end: index + 2*tokenCount}
		if entry(0) != 0 || t.start < 0 {
			continue
		}
		ok := true
		for i := range tokenCount {
			at := t.start + entry(i)
			n := textLength(image, at)
			if i >= '0' && at != offsets[i] || n < 0 {
				ok = false
				break
			}
			t.text[i] = string(image[at : at+n])
		}
		if ok {
			return t, true
		}
	}
	return nil, false
}

// textLength returns the length of the text at an offset, or -1 when none ends
// there within the limit.
func textLength(image []byte, at int) int {
	if at > len(image) {
		return -1
	}
	return bytes.IndexByte(image[at:min(len(image), at+maxName)], 0)
}

// markerStep is how many names lie between two markers.
const markerStep = 256

// symbols reads the rest of the table, of which the tokens are known.
func (t *tokens) symbols(image []byte) ([]Symbol, bool) {
	// The markers, which are the offsets of every 256th name, end in front of the
	// tokens; some kernels have three bytes for each name in between.
	for last := t.start &^ 3; last > t.start-3*maxSymbols && last > 4; last -= 4 {
		first, ok := markersEnding(image, last)
		if !ok {
			continue
		}
		if list, ok := t.named(image, first, last); ok {
			return list, true
		}
	}
	return nil, false
}

// markersEnding returns where the markers start that end at last: rising
// numbers from 0 on.
func markersEnding(image []byte, last int) (first int, ok bool) {
	next := uint32(1 << 31)
	for at := last - 4; at >= 0; at -= 4 {
		v := binary.LittleEndian.Uint32(image[at:])
		if v >= next || (next != 1<<31 && next-v > markerStep*maxName) {
			return 0, false
		}
		if v == 0 {
			return at, last-at >= 2*4
		}
		next = v
	}
	return 0, false
}

// named reads the names, whose markers lie at [first, last).
func (t *tokens) named(image []byte, first, last int) ([]Symbol, bool) {
	markers := (last - first) / 4
	end := int(binary.LittleEndian.Uint32(image[last-4:])) // of the names before the last marker
	for start := (first - end) &^ 3; start > first-end-markerStep*maxName && start >= 8; start -= 4 {
		for _, back := range []int{8, 4} { // the count, aligned
			n := int(binary.LittleEndian.Uint32(image[start-back:]))
			if n <= markerStep*(markers-1) || n > markerStep*markers {
				continue
			}
			list, ok := t.names(image, start, first, n)
			if !ok {
				continue
			}
			if addresses(image, list, start-back, t.end) {
				return list, true
			}
		}
	}
	return nil, false
}

// names expands n names from start on; the markers at first must agree.
func (t *tokens) names(image []byte, start, first, n int) ([]Symbol, bool) {
	if n > maxSymbols {
		return nil, false
	}
	list := make([]Symbol, 0, n)
	at := start
	var text []byte
	for i := range n {
		if i%markerStep == 0 && uint32(at-start) != binary.LittleEndian.Uint32(image[first+i/markerStep*4:]) {
			return nil, false
		}
		if at+2 > first {
			return nil, false
		}
		length := int(image[at])
		at++
		if length >= 0x80 { // two bytes; there is one more, since at+2 was in front of the markers
			length = length&0x7f | int(image[at])<<7
			at++
		}
		if length == 0 || at+length > first {
			return nil, false
		}
		text = text[:0]
		for _, b := range image[at : at+length] {
			text = append(text, t.text[b]...)
		}
		at += length
		if len(text) < 2 || len(text) > maxName {
			return nil, false
		}
		list = append(list, Symbol{Type: text[0], Name: string(text[1:])})
	}
	return list, first-at < 8
}

// addresses fills in the addresses: offsets from a base, in front of the count
// or, in later kernels, behind the tokens.
func addresses(image []byte, list []Symbol, count, tokensEnd int) bool {
	size := (4*len(list) + 7) &^ 7
	if base := count - 8; addressesAt(image, list, base-size, base) {
		return true
	}
	from := (tokensEnd + 7) &^ 7
	return addressesAt(image, list, from, from+size)
}

func addressesAt(image []byte, list []Symbol, from, base int) bool {
	if from < 0 || base < 0 || base+8 > len(image) || from+4*len(list) > len(image) {
		return false
	}
	start := binary.LittleEndian.Uint64(image[base:])
	if start>>32 != 0xffffffff { // the kernel lies in the last 2 GB
		return false
	}
	previous := uint64(0)
	for i := range list {
		// Offsets in the area of each processor are as they are; addresses are
		// counted downwards from -1.
		off := int32(binary.LittleEndian.Uint32(image[from+4*i:]))
		addr := uint64(off)
		if off < 0 {
			addr = start + uint64(-1-int64(off))
		}
		if addr < previous {
			return false
		}
		list[i].Addr, previous = addr, addr
	}
	return true
}
