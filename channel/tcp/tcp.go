// Package tcp makes TCP connections for the agent without package net, which
// would cost its package 80 kB.
//
// A connection is an os.File over a socket: the runtime's poller serves it, and
// deadlines work. Names are resolved by the system's getent, so the agent sees
// what every other program on the server sees (hosts file, DNS, LDAP and so on)
// and parses no DNS message. Servers use package net.
package tcp

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attempt is how long one of several addresses may keep the others waiting.
const attempt = 5 * time.Second

// Errors of this package.
var (
	ErrAddress = errors.New("not an address: it must look like name:port or [IPv6]:port")
	ErrName    = errors.New("the name of the server cannot be resolved")
)

// Split takes "name:port", "IPv4:port" or "[IPv6]:port" apart.
func Split(address string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "", 0, ErrAddress
	}
	host = address[:i]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return "", 0, ErrAddress
		}
	} else if strings.IndexByte(host, ':') >= 0 {
		return "", 0, ErrAddress
	}
	n, err := strconv.ParseUint(address[i+1:], 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, ErrAddress
	}
	return host, uint16(n), nil
}

// Dial connects to address. When the name has several addresses they are tried
// one after the other. The error of the last one is returned, or ctx's.
func Dial(ctx context.Context, address string) (*os.File, error) {
	host, port, err := Split(address)
	if err != nil {
		return nil, err
	}
	addresses, err := resolve(ctx, host)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	for i, a := range addresses {
		var f *os.File
		if f, err = try(ctx, a, port, i+1 < len(addresses)); err == nil {
			return f, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = errors.New("connecting to " + address + ": " + err.Error())
	}
	return nil, err
}

func try(ctx context.Context, a ip, port uint16, others bool) (*os.File, error) {
	if others {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, attempt)
		defer stop()
	}
	f, err := start(a, port)
	if err != nil {
		return nil, err
	}
	cut := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) }) // a closed file needs none
	err = wait(f)
	if !cut() {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// start begins to connect and returns at once.
func start(a ip, port uint16) (*os.File, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: a.bytes})
	if a.v4 {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte(a.bytes[12:])}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// Requests are small and wait for their answers.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tcp"), nil
}

// wait returns when the connection stands or has failed.
func wait(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(ready, 0)
		if err == unix.EINTR || err == nil && n == 0 {
			return false // the poller calls again when something happened
		}
		var code int
		if err == nil {
			code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		}
		if failed = err; err == nil && code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	return errors.Join(err, failed)
}
