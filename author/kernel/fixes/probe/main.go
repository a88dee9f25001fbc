// Command probe asks a running kernel, from a process without privileges, whether
// it has a fix: probe NAME prints "vulnerable" or "fixed". It asks for the
// refusal that the fix brings, on objects of its own, and takes no advantage of
// what it gets.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probes return whether the kernel is fixed.
var probes = map[string]func() (bool, error){
	"ptrace-zombie":   ptraceZombie,
	"tcp-filter":      tcpFilter,
	"source-route":    sourceRoute,
	"unix-mark":       unixMark,
	"message-next-id": messageNextID,
	"text-poke":       textPoke,
}

// special are what the program does for tests and for itself.
var special = map[string]func(args []string) error{
	hidden:    func([]string) error { return hide() },
	"reach":   reach,
	replaced:  func([]string) error { return syscall.Exec("/proc/self/exe", []string{"probe", "nothing"}, nil) },
	"nothing": func([]string) error { return nil },
}

func main() {
	if len(os.Args) > 1 && special[os.Args[1]] != nil {
		if err := special[os.Args[1]](os.Args[2:]); err != nil {
			fail(err)
		}
		return
	}
	if len(os.Args) != 2 || probes[os.Args[1]] == nil {
		names := make([]string, 0, len(probes))
		for name := range probes {
			names = append(names, name)
		}
		sort.Strings(names)
		fail(fmt.Errorf("probe %s", strings.Join(names, "|")))
	}
	fixed, err := probes[os.Args[1]]()
	switch {
	case err != nil:
		fail(err)
	case fixed:
		fmt.Println("fixed")
	default:
		fmt.Println("vulnerable")
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// refused tells a refusal from success; other answers are errors.
func refused(err, refusal error) (bool, error) {
	if err == nil || errors.Is(err, refusal) {
		return err != nil, nil
	}
	return false, err
}

// hidden makes this program the child that nobody may look into.
const hidden = "hidden"

func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if _, err := fmt.Println("hidden"); err != nil {
		return err
	}
	_, err := os.Stdin.Read(make([]byte, 1)) // until the parent closes it
	if err != nil && err.Error() != "EOF" {
		return err
	}
	return nil
}

// ptraceZombie asks for a file of a child that made itself unreadable: while it
// lives, and when it has ended and has no memory that could say so. The kernel
// must refuse both alike.
func ptraceZombie() (bool, error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	child := exec.Command(self, hidden)
	in, err := child.StdinPipe()
	if err != nil {
		return false, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := child.Start(); err != nil {
		return false, err
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return false, err
	}
	fd, err := unix.PidfdOpen(child.Process.Pid, 0)
	if err != nil {
		return false, err
	}
	if _, err := unix.PidfdGetfd(fd, 0, 0); !errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("a living child's file: %v, want a refusal", err)
	}
	if err := in.Close(); err != nil {
		return false, err
	}
	// The child is not waited for, so it stays as a zombie.
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Minute/time.Millisecond)); err != nil {
		return false, err
	}
	_, err = unix.PidfdGetfd(fd, 0, 0)
	if err == nil || errors.Is(err, unix.EBADF) { // it was let in, and the files are gone
		return false, nil
	}
	return refused(err, unix.EPERM)
}

// tcpFilter sets a filter that lets everything pass on a socket of its own.
func tcpFilter() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	pass := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &pass[0]})
	return refused(err, unix.EPERM)
}

// sourceRoute asks for a loose source route on a socket of its own.
func sourceRoute() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	const loose = 131
	err = unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string([]byte{loose, 7, 4, 127, 0, 0, 1, 0}))
	return refused(err, unix.EPERM)
}

// unixMark asks a datagram socket, which has no urgent data, where they are.
func unixMark() (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	_, err = unix.IoctlGetInt(fd, unix.SIOCATMARK)
	return refused(err, unix.EOPNOTSUPP)
}

// messageNextID, which needs privileges, asks twice for the last number that a
// message queue may have. The second one must be refused, and not get a number
// behind the last.
func messageNextID() (bool, error) {
	const file, last = "/proc/sys/kernel/msg_next_id", "32767"
	var first uintptr
	for round := range 2 {
		if err := os.WriteFile(file, []byte(last), 0); err != nil {
			return false, err
		}
		id, _, errno := unix.Syscall(unix.SYS_MSGGET, 0, 0o600, 0)
		switch {
		case round == 0 && errno != 0:
			return false, errno
		case round == 0:
			first = id
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MSGCTL, first, unix.IPC_RMID, 0); errno != 0 {
			return false, errno
		}
		if errno == 0 {
			return false, nil
		}
		return refused(errno, unix.ENOSPC)
	}
	return false, nil
}

// textPoke asks for events of changes of the kernel's code, without the right to
// see the kernel.
func textPoke() (bool, error) {
	const excludeKernel, pokes = 1 << 5, 1 << 33
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: unix.PERF_ATTR_SIZE_VER7, Bits: excludeKernel | pokes}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	if err == nil {
		return false, unix.Close(fd)
	}
	return refused(err, unix.EACCES)
}
