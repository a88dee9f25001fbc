// Command oracle tells whether the running kernel has CVE-2026-46333, without
// using it: the kernel must refuse a process that is not root the files of a
// child that made itself private (not dumpable), while the child lives and also
// when it has ended and was not waited for. It prints FIXED or VULNERABLE.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "child" {
		child()
		return
	}
	verdict, err := ask()
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
	fmt.Println(verdict)
}

// child makes itself private and ends when its input does.
func child() {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // how it ends says nothing
}

func ask() (verdict string, err error) {
	if os.Geteuid() == 0 {
		return "", errors.New("root may see everything: start it as another user")
	}
	runtime.LockOSThread() // no other thread waits for the child
	c := exec.Command("/proc/self/exe", "child")
	in, err := c.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Wait()) }()
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
		return "", fmt.Errorf("the child is not ready: %q %w", ready, err)
	}
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_, alive := unix.PidfdGetfd(fd, 0, 0)
	if err := in.Close(); err != nil {
		return "", err
	}
	// A pidfd can be read when its process has ended.
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
		return "", err
	}
	_, ended := unix.PidfdGetfd(fd, 0, 0)
	switch {
	case alive != unix.EPERM:
		return "", fmt.Errorf("while the child lives the kernel answers %v, not %v: it says nothing of the flaw", alive, unix.EPERM)
	case ended == unix.EPERM:
		return "FIXED: while the child lives " + unix.ErrnoName(unix.EPERM) + ", when it ended " + unix.ErrnoName(unix.EPERM), nil
	}
	var number unix.Errno
	if !errors.As(ended, &number) {
		return "", fmt.Errorf("when the child ended: %w", ended)
	}
	return "VULNERABLE: while the child lives " + unix.ErrnoName(unix.EPERM) + ", when it ended " + unix.ErrnoName(number), nil
}
