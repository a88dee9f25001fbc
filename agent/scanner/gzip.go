package scanner

import (
	"encoding/binary"
	"hash/crc32"
)

// The agent packs reports itself: package compress/gzip makes fmt reachable and
// costs the agent's package 100 kB. The codes are DEFLATE's fixed ones
// (RFC 1951, section 3.2.6), so only repetition is packed, of which XML is full.
const (
	window   = 32 << 10 // how far back a repetition may lie
	minMatch = 4
	maxMatch = 258
	hashBits = 15
	maxChain = 64 // places that are compared
)

// pack returns data as a gzip file (RFC 1952).
func pack(data []byte) []byte {
	z := packer{out: []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}}
	z.bits(1|1<<1, 3) // last block, fixed codes
	z.deflate(data)
	z.literal(256) // end of block
	z.bits(0, 7)   // to the next byte
	z.out = binary.LittleEndian.AppendUint32(z.out, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(z.out, uint32(len(data)))
}

type packer struct {
	out  []byte
	acc  uint64
	used uint
}

func (z *packer) deflate(data []byte) {
	head := make([]int32, 1<<hashBits) // newest place with this hash, plus one
	before := make([]int32, window)    // the next older place with the same hash
	for at := 0; at < len(data); {
		length, distance := 0, 0
		if at+minMatch <= len(data) {
			length, distance = longest(data, at, head, before)
		}
		step := 1
		if length >= minMatch {
			z.match(length, distance)
			step = length
		} else {
			z.literal(int(data[at]))
		}
		for end := at + step; at < end; at++ {
			if at+minMatch <= len(data) {
				h := hash(data[at:])
				before[at%window], head[h] = head[h], int32(at+1)
			}
		}
	}
}

func hash(b []byte) uint32 { return binary.LittleEndian.Uint32(b) * 2654435761 >> (32 - hashBits) }

// longest finds the longest earlier occurrence of what starts at at.
func longest(data []byte, at int, head, before []int32) (length, distance int) {
	limit := min(maxMatch, len(data)-at)
	place := int(head[hash(data[at:])]) - 1
	for range maxChain {
		if place < 0 || at-place > window-1 {
			break
		}
		n := 0
		for n < limit && data[place+n] == data[at+n] {
			n++
		}
		if n > length {
			if length, distance = n, at-place; n == limit {
				break
			}
		}
		next := int(before[place%window]) - 1
		if next >= place { // overwritten by a newer place
			break
		}
		place = next
	}
	return length, distance
}

// literal writes the fixed code of a literal or length symbol.
func (z *packer) literal(symbol int) {
	switch {
	case symbol < 144:
		z.code(0x30+symbol, 8)
	case symbol < 256:
		z.code(0x190+symbol-144, 9)
	case symbol < 280:
		z.code(symbol-256, 7)
	default:
		z.code(0xc0+symbol-280, 8)
	}
}

// match writes a repetition.
func (z *packer) match(length, distance int) {
	if length == maxMatch {
		z.literal(285)
	} else {
		symbol, extra, bits := bucket(length-3, 4)
		z.literal(257 + symbol)
		z.bits(uint64(extra), bits)
	}
	symbol, extra, bits := bucket(distance-1, 2)
	z.code(symbol, 5)
	z.bits(uint64(extra), bits)
}

// bucket returns the symbol for a value that starts at 0, and what its extra
// bits say: groups of perDoubling symbols cover ranges that double.
func bucket(value, perDoubling int) (symbol, extra int, bits uint) {
	for value>>bits >= 2*perDoubling {
		bits++
	}
	return int(bits)*perDoubling + value>>bits, value & (1<<bits - 1), bits
}

// code writes a Huffman code, whose first bit is its highest.
func (z *packer) code(code, bits int) {
	reversed := 0
	for range bits {
		reversed = reversed<<1 | code&1
		code >>= 1
	}
	z.bits(uint64(reversed), uint(bits))
}

// bits writes the low bits of v, lowest first.
func (z *packer) bits(v uint64, n uint) {
	z.acc |= v << z.used
	for z.used += n; z.used >= 8; z.used -= 8 {
		z.out = append(z.out, byte(z.acc))
		z.acc >>= 8
	}
}
