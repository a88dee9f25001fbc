package userspace

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pageSize       = 4096
	maxStatusBytes = 16 << 10 // of /proc/PID/status and stat
	direntBytes    = 32 << 10 // buffer for directory entries
)

// errEnded says that a process is not there any more, or that its number now
// belongs to another.
var errEnded = errors.New("the process ended")

// handle holds one process by descriptors that cannot come to mean another one.
type handle struct {
	pid   int
	start uint64
	comm  string
	dir   int // /proc/PID; dead once the process is gone
	pidfd int // -1 when only looked at
	mem   int // /proc/PID/mem, bound to the memory it had when opened; -1 when not opened
	tasks int // /proc/PID/task; -1 when not opened
}

// glance opens a process for reading what the kernel says about it, without
// its name and start time.
func glance(pid int) (*handle, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	return &handle{pid: pid, dir: dir, pidfd: -1, mem: -1, tasks: -1}, nil
}

// look is glance with them.
func look(pid int) (*handle, error) {
	h, err := glance(pid)
	if err != nil {
		return nil, err
	}
	if h.comm, h.start, err = h.stat(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// pin opens a process for work and makes sure that it is p.
func pin(p Process) (*handle, error) {
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil, gone(err)
	}
	h, err := look(p.PID)
	if err != nil {
		unix.Close(pidfd)
		return nil, err
	}
	h.pidfd = pidfd
	// The number belonged to the pidfd's process when dir was opened, because
	// that process is still there now.
	if h.start != p.Start || h.ended(0) {
		h.close()
		return nil, errEnded
	}
	if h.mem, err = h.open("mem", unix.O_RDWR); err == nil {
		h.tasks, err = h.open("task", unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *handle) close() {
	for _, fd := range []int{h.dir, h.pidfd, h.mem, h.tasks} {
		if fd >= 0 {
			unix.Close(fd) // read-only or unbuffered: nothing can be lost
		}
	}
}

// ended waits up to d and reports whether the process has ended.
func (h *handle) ended(d time.Duration) bool {
	deadline := time.Now().Add(d)
	for {
		fds := []unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll(fds, int((left+time.Millisecond-1)/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}

func (h *handle) open(name string, flags int) (int, error) {
	fd, err := unix.Openat(h.dir, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, gone(err)
	}
	return fd, nil
}

// text reads a file of /proc/PID that has at most limit bytes.
func (h *handle) text(name string, buf []byte, limit int) ([]byte, error) {
	fd, err := h.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if n == len(buf) {
			if n >= limit {
				return nil, errTooLong
			}
			buf = append(buf, make([]byte, max(n, 16<<10))...)
		}
		k, err := unix.Read(fd, buf[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, gone(err)
		case k == 0:
			return buf[:n], nil
		default:
			n += k
		}
	}
}

var errTooLong = errors.New("a file of /proc is longer than the agent reads")

// stat returns command and start time.
func (h *handle) stat() (comm string, start uint64, err error) {
	text, err := h.text("stat", make([]byte, 1024), maxStatusBytes)
	if err != nil {
		return "", 0, err
	}
	return parseStat(string(text))
}

var errStat = errors.New("the kernel's account of the process cannot be read")

// statFields splits /proc/PID/stat. The command is in parentheses and may itself
// hold blanks and parentheses; fields begins with the third, the state (proc(5)).
func statFields(s string) (comm string, fields []string, ok bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return "", nil, false
	}
	return s[open+1 : end], strings.Fields(s[end+1:]), true
}

// parseStat reads a process's command and start time from its /proc/PID/stat.
func parseStat(s string) (comm string, start uint64, err error) {
	const startTime = 22 - 3
	comm, fields, ok := statFields(s)
	if !ok || len(fields) <= startTime {
		return "", 0, errStat
	}
	if start, err = strconv.ParseUint(fields[startTime], 10, 64); err != nil {
		return "", 0, errStat
	}
	return printable(comm), start, nil
}

// parseProcessor reads from /proc/PID/stat on which processor the thread ran last.
func parseProcessor(s string) (cpu int, ok bool) {
	const processor = 39 - 3
	_, fields, ok := statFields(s)
	if !ok || len(fields) <= processor {
		return 0, false
	}
	cpu, err := strconv.Atoi(fields[processor])
	return cpu, err == nil && cpu >= 0
}

// printable keeps a name that a process gave itself from being more than text.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// status is what /proc/PID/status says that matters here.
type status struct {
	zombie  bool
	deep    bool // waits in the kernel for something that no signal breaks off
	parent  int
	tracer  int
	seccomp bool
	ignored uint64 // signals; bit 0 is signal 1
}

func (h *handle) status() (status, error) {
	text, err := h.text("status", make([]byte, 4096), maxStatusBytes)
	if err != nil {
		return status{}, err
	}
	return parseStatus(string(text))
}

func parseStatus(s string) (st status, err error) {
	seen := false
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			st.zombie = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
			st.deep = strings.HasPrefix(value, "D")
			seen = true
		case "PPid":
			if st.parent, err = strconv.Atoi(value); err != nil {
				return st, errStat
			}
		case "TracerPid":
			if st.tracer, err = strconv.Atoi(value); err != nil {
				return st, errStat
			}
		case "Seccomp":
			st.seccomp = value != "0"
		case "SigIgn":
			if st.ignored, err = strconv.ParseUint(value, 16, 64); err != nil {
				return st, errStat
			}
		}
	}
	if !seen {
		return st, errStat
	}
	return st, nil
}

// mappings reads the process's mappings. buf is used when it is large enough.
func (h *handle) mappings(buf []byte, ms []mapping) ([]mapping, error) {
	text, err := h.text("maps", buf, maxMapsBytes)
	if err != nil {
		return nil, err
	}
	return parseMaps(text, ms[:0])
}

// ReadAt reads the process's memory. It implements io.ReaderAt.
func (h *handle) ReadAt(b []byte, addr int64) (int, error) {
	for n := 0; n < len(b); {
		k, err := unix.Pread(h.mem, b[n:], addr+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case k == 0:
			return n, errEnded // its memory is gone
		default:
			n += k
		}
	}
	return len(b), nil
}

// write writes the process's memory, read-only pages included; the pages
// become its private copies.
func (h *handle) write(b []byte, addr uint64) error {
	for n := 0; n < len(b); {
		k, err := unix.Pwrite(h.mem, b[n:], int64(addr)+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case k == 0:
			return errEnded
		default:
			n += k
		}
	}
	return nil
}

// numbers appends the numeric names in the directory fd to list.
func numbers(fd int, buf []byte, list []int, limit int) ([]int, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return list, gone(err)
	}
	for {
		n, err := unix.Getdents(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return list, gone(err)
		case n == 0:
			return list, nil
		}
		// struct linux_dirent64: inode, offset, record length (u16 at 16), type, name.
		for b := buf[:n]; len(b) > 19; {
			size := int(binary.LittleEndian.Uint16(b[16:]))
			if size < 20 || size > len(b) {
				return list, errStat
			}
			id := 0
			for i := 19; i < size && b[i] != 0; i++ {
				if b[i] < '0' || b[i] > '9' || id > 1<<30 {
					id = 0
					break
				}
				id = id*10 + int(b[i]-'0')
			}
			if id > 0 {
				if len(list) == limit {
					return list, errTooMany
				}
				list = append(list, id)
			}
			b = b[size:]
		}
	}
}

var errTooMany = errors.New("there are more threads or processes than the agent handles")

// gone turns the kernel's ways of saying that a process is not there into errEnded.
func gone(err error) error {
	if err == unix.ESRCH || err == unix.ENOENT {
		return errEnded
	}
	return err
}
