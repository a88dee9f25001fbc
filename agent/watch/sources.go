package watch

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openProcs asks the kernel's proc connector for events. Outside of the first
// process and user namespace the kernel does not answer.
func openProcs() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	group := unix.RawSockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&group)), unix.SizeofSockaddrNetlink); e != 0 {
		return -1, e
	}
	const room = 1 << 20 // bytes; as many as the kernel allows
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room); err != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
	}
	if err != nil {
		return -1, err
	}
	ack := uint32(os.Getpid())
	if _, err = unix.Write(fd, encodeListen(ack)); err != nil { // to the kernel, as nobody else is named
		return -1, err
	}
	buf := make([]byte, maxMessage)
	for end := time.Now().Add(answerTime); ; {
		left := time.Until(end)
		if left <= 0 {
			return -1, errors.New("the kernel does not answer, as in a container")
		}
		if _, err = poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, left); err != nil {
			return -1, err
		}
		e, _, err := receive(fd, buf)
		switch {
		case err != nil:
			return -1, err
		case e.what == procNone && e.ack == ack+1 && e.errno != 0:
			return -1, unix.Errno(e.errno)
		case e.what == procNone && e.ack == ack+1 && e.thread == answered:
			return fd, nil
		}
	}
}

const (
	answerTime = time.Second
	answered   = -1 // thread of the answer to a request, to tell it from nothing
)

// receive reads one event if one is there; some is false when none is. The error
// ENOBUFS means that the kernel had to drop events.
func receive(fd int, buf []byte) (e procEvent, some bool, err error) {
	for {
		// The library's own call would bring in the addresses of every protocol.
		var from unix.RawSockaddrNetlink
		size := uint32(unix.SizeofSockaddrNetlink)
		n, _, err := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return procEvent{}, false, nil
		case err != 0:
			return procEvent{}, false, err
		}
		if size != unix.SizeofSockaddrNetlink || from.Pid != 0 {
			continue // not the kernel
		}
		if e, ok := decodeProc(buf[:n]); ok {
			if e.what == procNone {
				e.thread = answered
			}
			return e, true, nil
		}
	}
}

// openOpens makes a fanotify group that reports who opens a marked file. It
// gets file ids instead of descriptors, so that nothing is opened here: the file
// system may be one that a user serves.
func openOpens() (int, error) {
	return unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_FID, unix.O_RDONLY)
}

// mark marks the file that an O_PATH descriptor names. Where the kernel can, the
// mark keeps no deleted file alive.
func mark(group, file int) error {
	path := "/proc/self/fd/" + strconv.Itoa(file)
	err := unix.FanotifyMark(group, unix.FAN_MARK_ADD|unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN, unix.AT_FDCWD, path)
	if err == unix.EINVAL || err == unix.EEXIST {
		err = unix.FanotifyMark(group, unix.FAN_MARK_ADD, unix.FAN_OPEN, unix.AT_FDCWD, path)
	}
	return err
}

// openLog opens the kernel's log at its end, if the log names faults of programs.
func openLog() (int, error) {
	b, err := os.ReadFile("/proc/sys/debug/exception-trace")
	if err == nil && strings.TrimSpace(string(b)) == "0" {
		return -1, errors.New("the sysctl debug.exception-trace is 0")
	}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// poll waits up to d for one of the descriptors.
func poll(fds []unix.PollFd, d time.Duration) (int, error) {
	n, err := unix.Poll(fds, int((d+time.Millisecond-1)/time.Millisecond))
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}
