package watch

import (
	"encoding/binary"
	"strconv"
	"strings"
)

var ne = binary.NativeEndian

// Layout of a proc connector datagram: netlink header, connector header, event.
const (
	nlHeader   = 16
	cnHeader   = 20
	eventData  = 16 // within the event: what, cpu and time come before
	cnIdxProc  = 1
	cnValProc  = 1
	cnListen   = 1
	procNone   = 0
	procFork   = 1
	procExec   = 2
	procExit   = 0x80000000
	nlmsgDone  = 3
	maxMessage = 4 << 10 // bytes of one datagram; the kernel's are under 100
)

// procEvent is what the kernel says of one thread.
type procEvent struct {
	what   uint32
	pid    int // process
	thread int
	child  int // procFork: the new process, 0 for a new thread
	signal int // procExit: that killed it, 0 for none
	errno  uint32
	ack    uint32 // procNone: of the request that it answers, one more
}

// decodeProc reads one datagram of the proc connector. ok is false for anything
// that is not one whole event of a known kind.
func decodeProc(b []byte) (e procEvent, ok bool) {
	if len(b) < nlHeader+cnHeader+eventData+4 || len(b) > maxMessage {
		return e, false
	}
	if n := ne.Uint32(b); uint64(n) > uint64(len(b)) || n < nlHeader+cnHeader || ne.Uint16(b[4:]) != nlmsgDone {
		return e, false
	}
	cn := b[nlHeader:]
	if ne.Uint32(cn) != cnIdxProc || ne.Uint32(cn[4:]) != cnValProc || int(ne.Uint16(cn[16:])) > len(cn)-cnHeader {
		return e, false
	}
	body := cn[cnHeader : cnHeader+int(ne.Uint16(cn[16:]))]
	if len(body) < eventData+4 {
		return e, false
	}
	e.what, e.ack = ne.Uint32(body), ne.Uint32(cn[12:])
	data := body[eventData:]
	field := func(i int) int { return int(int32(ne.Uint32(data[4*i:]))) }
	need := 4
	switch e.what {
	case procNone:
		need = 1
	case procExec:
		need = 2
	case procFork, procExit:
	default:
		return e, false
	}
	if len(data) < 4*need {
		return e, false
	}
	switch e.what {
	case procNone:
		e.errno = ne.Uint32(data)
		return e, true
	case procFork:
		e.thread, e.pid = field(0), field(1)
		if field(2) == field(3) {
			e.child = field(3)
		}
	case procExec:
		e.thread, e.pid = field(0), field(1)
	case procExit:
		e.thread, e.pid, e.signal = field(0), field(1), field(2)&0x7f
	}
	return e, e.pid > 0 && e.thread > 0 && e.child >= 0
}

// encodeListen returns the datagram that asks the kernel for events. The answer
// has one more than ack.
func encodeListen(ack uint32) []byte {
	b := make([]byte, nlHeader+cnHeader+4)
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], nlmsgDone)
	cn := b[nlHeader:]
	ne.PutUint32(cn, cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint32(cn[12:], ack)
	ne.PutUint16(cn[16:], 4)
	ne.PutUint32(cn[cnHeader:], cnListen)
	return b
}

// Layout of a fanotify record.
const (
	fanHeader   = 24
	fanVersion  = 3
	fanOpen     = 0x20
	fanOverflow = 0x4000
	fanNoFD     = -1
)

// decodeOpens reads what one read of a fanotify group returned: the processes
// that opened a marked file, and whether the kernel lost some. ok is false when
// the bytes are not records of a group that opens nothing; what was read before
// still counts.
func decodeOpens(b []byte) (pids []int, lost, ok bool) {
	for len(b) > 0 {
		if len(b) < fanHeader {
			return pids, lost, false
		}
		size := ne.Uint32(b)
		if b[4] != fanVersion || size < fanHeader || uint64(size) > uint64(len(b)) {
			return pids, lost, false
		}
		mask, fd, pid := ne.Uint64(b[8:]), int(int32(ne.Uint32(b[16:]))), int(int32(ne.Uint32(b[20:])))
		if fd != fanNoFD {
			return pids, lost, false
		}
		lost = lost || mask&fanOverflow != 0
		if mask&fanOpen != 0 && pid > 0 {
			pids = append(pids, pid)
		}
		b = b[size:]
	}
	return pids, lost, true
}

// maxCommand is how long the name is, in bytes, that the kernel knows a thread by.
const maxCommand = 15

// parseFault reads one record of /dev/kmsg: that the kernel killed a thread for
// a fault, and where that was.
//
//	4,1234,5678,-;xz[123]: segfault at 0 ip 00007f.. sp 00007f.. error 6 in liblzma.so[..]
//	4,1234,5678,-;traps: xz[123] trap invalid opcode ip:7f.. sp:7f.. error:0 in liblzma.so[..]
//	4,1234,5678,-;traps: xz[123] general protection fault ip:7f.. sp:7f.. error:0
//
// The name is the thread's own choice and may look like the rest of the line,
// so it counts only within its length.
func parseFault(record string) (thread int, ip uint64, ok bool) {
	head, text, found := strings.Cut(record, ";")
	if priority, err := strconv.ParseUint(firstField(head), 10, 32); !found || err != nil || priority>>3 != 0 {
		return 0, 0, false // facility 0 is the kernel itself; what a program writes has another
	}
	text, _, _ = strings.Cut(text, "\n")
	text = unescape(text)
	text, traps := strings.CutPrefix(text, "traps: ")
	mark, before := "]: segfault at ", " ip "
	if traps {
		mark, before = "] ", " ip:"
	}
	for open := min(maxCommand, len(text)-1); open >= 0; open-- {
		if text[open] != '[' {
			continue
		}
		digits, rest, found := strings.Cut(text[open+1:], mark)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || n == 0 {
			continue
		}
		if traps && !strings.HasPrefix(rest, "trap ") && !strings.HasPrefix(rest, "general protection") {
			continue
		}
		_, rest, found = strings.Cut(" "+rest, before)
		if !found {
			return 0, 0, false
		}
		end := strings.IndexByte(rest, ' ')
		if end < 0 {
			return 0, 0, false
		}
		ip, err = strconv.ParseUint(rest[:end], 16, 64)
		return int(n), ip, err == nil
	}
	return 0, 0, false
}

func firstField(s string) string {
	field, _, _ := strings.Cut(s, ",")
	return field
}

// unescape undoes /dev/kmsg's \xNN.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b = append(b, byte(v))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
