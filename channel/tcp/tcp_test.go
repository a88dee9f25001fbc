package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestDialCarriesBytesBothWays(t *testing.T) {
	for _, at := range []struct{ listen, host string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"127.0.0.1:0", "localhost"}, {"[::1]:0", "[::1]"},
	} {
		l, err := net.Listen("tcp", at.listen)
		if err != nil {
			if at.host == "[::1]" {
				t.Log("no IPv6 here: not tested with it")
				continue
			}
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.Copy(c, c)
		}()
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		f, err := Dial(ctx, at.host+":"+strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		if err != nil {
			t.Errorf("%s: %v", at.host, err)
			continue
		}
		defer f.Close()
		got := make([]byte, 5)
		if _, err := io.WriteString(f, "hello"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(f, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q came back, %v", at.host, got, err)
		}
		if err := f.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if _, err := f.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: reading past the deadline: %v", at.host, err)
		}
	}
}

func TestDialFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	if _, err := Dial(t.Context(), closed); err == nil {
		t.Error("connected to a port that nobody listens on")
	}
	if _, err := Dial(t.Context(), "name.invalid:80"); !errors.Is(err, ErrName) {
		t.Errorf("a name that does not exist: %v, want ErrName", err)
	}
	for _, bad := range []string{"", "a", ":1", "a:", "a:0", "a:65536", "::1:80", "[::1:80", "-x:1", "a b:1"} {
		if _, err := Dial(t.Context(), bad); !errors.Is(err, ErrAddress) {
			t.Errorf("Dial(%q) = %v, want ErrAddress", bad, err)
		}
	}
}

// A listener whose queue is full leaves a connection in the making.
func TestDialEndsWithItsContext(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		f, err := Dial(ctx, address)
		stop()
		if err == nil {
			defer f.Close()
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want the context's error", err)
		}
		return
	}
	t.Skip("this kernel accepts more connections than the queue has room for: cannot be tested here")
}

func FuzzParseIP(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::", "::1", "1::", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1.2.3", "1:2:3:4:5:6:7::", "+1.2.3.4", "1:::2", "01.2.3.4", "1:2:3:4:5:6:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseIP(s)
		want, err := netip.ParseAddr(s)
		if ok != (err == nil && want.Zone() == "") {
			t.Fatalf("parseIP(%q) accepted: %v, netip: %v", s, ok, err)
		}
		if ok && (a.v4 != want.Is4() || a.v4 && [4]byte(a.bytes[12:]) != want.As4() || !a.v4 && a.bytes != want.As16()) {
			t.Fatalf("parseIP(%q) = %v, want %v", s, a, want)
		}
	})
}
