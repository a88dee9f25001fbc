package guest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"livemend.dev/livemend/internal/guest"
)

// hello is a module with a file that tells its parameter.
const hello = `// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
static char *word = "none";
module_param(word, charp, 0444);
static int __init hello_init(void) { pr_info("hello: %s\n", word); return 0; }
static void __exit hello_exit(void) { pr_info("hello: bye\n"); }
module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("says hello");
MODULE_LICENSE("GPL");
`

// goodbye panics at once.
const goodbye = `// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
static int __init goodbye_init(void) { panic("goodbye"); return 0; }
module_init(goodbye_init);
MODULE_DESCRIPTION("ends the machine");
MODULE_LICENSE("GPL");
`

func TestGuests(t *testing.T) {
	for _, k := range []guest.Kernel{guest.Debian61, guest.Debian612} {
		t.Run(k.Release, func(t *testing.T) {
			disk := guest.Disk(t)
			g := guest.Boot(t, guest.Config{Kernel: k, Network: true, Disk: disk, Files: map[string]string{"/etc/words": "guest_test.go"}})
			if got := g.Text("/proc/sys/kernel/osrelease"); got != k.Release {
				t.Errorf("release %q, want %q", got, k.Release)
			}
			module, err := os.ReadFile(guest.Module(t, k, "hello", hello))
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Insert(module, "word=there"); err != nil {
				t.Fatal(err)
			}
			g.Expect("hello: there")
			if err := g.Insert(module, ""); !errors.Is(err, syscall.EEXIST) {
				t.Errorf("loading it twice: %v, want EEXIST", err)
			}
			if err := g.Remove("hello"); err != nil {
				t.Error(err)
			}
			g.Expect("hello: bye")

			large := make([]byte, 3<<20)
			if _, err := rand.Read(large); err != nil {
				t.Fatal(err)
			}
			g.Put("/disk/large", large)
			if got, err := g.Get("/disk/large"); err != nil || !bytes.Equal(got, large) {
				t.Errorf("a file came back with %d bytes, %v", len(got), err)
			}
			if _, err := g.Get("/nothing"); err == nil {
				t.Error("a file that is not there can be read")
			}
			g.PowerOff()

			bad, err := os.ReadFile(guest.Module(t, k, "goodbye", goodbye))
			if err != nil {
				t.Fatal(err)
			}
			g = guest.Boot(t, guest.Config{Kernel: k, Disk: disk, SMP: 2})
			if got, err := g.Get("/disk/large"); err != nil || !bytes.Equal(got, large) {
				t.Errorf("after a reboot the file has %d bytes, %v", len(got), err)
			}
			if err := g.Insert(bad, ""); !errors.Is(err, guest.ErrEnded) {
				t.Errorf("a panic gives %v, want ErrEnded", err)
			}
			g.Ended()
			if !strings.Contains(g.Log(), "Kernel panic - not syncing: goodbye") {
				t.Error("the console does not show the panic")
			}
		})
	}
}

// TestPrograms runs the guest's own program, the only one that is there.
func TestPrograms(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	heard := make(chan string, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		c.Close()
		heard <- string(b)
	}()
	g := guest.Boot(t, guest.Config{Kernel: guest.Debian61, Network: true,
		Files: map[string]string{"/bin/puppet": guest.Built(t, "livemend.dev/livemend/internal/guest/puppet")}})

	r := g.Run(guest.Command{Args: []string{"/bin/puppet", "echo", "3"}, Stdin: []byte("in"), Env: []string{"WORD=env"}, UID: 65534})
	if r.Exit != 3 || string(r.Stdout) != "in env 65534\n" || string(r.Stderr) != "error\n" || r.TimedOut {
		t.Errorf("the program gave %+v: %s%s", r, r.Stdout, r.Stderr)
	}
	if r := g.Run(guest.Command{Args: []string{"/bin/puppet", "dial", guest.HostAddress + ":" + port}}); r.Exit != 0 {
		t.Fatalf("the host cannot be reached: %s", r.Stderr)
	}
	if got := <-heard; got != "from the guest" {
		t.Errorf("the host heard %q", got)
	}
	if r := g.Run(guest.Command{Args: []string{"/bin/puppet", "sleep"}, Timeout: 300 * time.Millisecond}); !r.TimedOut || r.Signal != int(syscall.SIGKILL) {
		t.Errorf("a program that takes too long gave %+v", r)
	}
	p := g.Start(guest.Command{Args: []string{"/bin/puppet", "sleep"}})
	if p.PID < 2 {
		t.Errorf("process %d", p.PID)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(); err != nil || r.Signal != int(syscall.SIGKILL) {
		t.Errorf("a killed program gave %+v, %v", r, err)
	}
	if _, err := g.Guest.Run(guest.Command{Args: []string{"/bin/nothing"}}); err == nil {
		t.Error("a program that is not there ran")
	}
	p = g.Start(guest.Command{Args: []string{"/bin/puppet", "sleep"}})
	g.Kill()
	if _, err := p.Wait(); !errors.Is(err, guest.ErrEnded) {
		t.Errorf("the program of a guest that was cut off gave %v", err)
	}
}

// A package that is not in the archive is no failure of what is tested.
func TestMissingPackage(t *testing.T) {
	t.Setenv("LIVEMEND_GUEST_CACHE", t.TempDir())
	p := guest.Debian61.Image
	p.Version = "6.1.0-0"
	if _, err := guest.Fetch(context.Background(), p); !errors.Is(err, guest.ErrUnavailable) {
		t.Errorf("Fetch = %v, want ErrUnavailable", err)
	}
}
