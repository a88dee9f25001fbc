package world

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd holds on to a process that is no child.
func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// endsWithin waits for the end of the process of a pidfd.
func endsWithin(t *testing.T, fd *os.File, limit time.Duration) bool {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
}
