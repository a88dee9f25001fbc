// Command init is the first process of a guest that tests boot: it mounts what
// every program expects, inserts the few drivers that the guest needs, brings
// the network up and does what the host asks (package call). It is for tests
// only and trusts the host in everything.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/internal/guest/call"
)

// deviceTime is how long a device may take to appear after its driver.
const deviceTime = 20 * time.Second

func main() {
	if os.Getpid() != 1 {
		os.Exit(tool(os.Args[1:]))
	}
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	if err := serve(); err != nil {
		fmt.Println("guest: ", err)
	}
	powerOff()
}

// tool inserts or removes a module in a process of its own, which may hang. Its
// exit status is the kernel's error number.
func tool(args []string) int {
	var err error
	switch {
	case len(args) == 3 && args[0] == "insert":
		err = insert(args[1], args[2])
	case len(args) == 2 && args[0] == "remove":
		err = unix.DeleteModule(args[1], unix.O_NONBLOCK)
	default:
		err = unix.EINVAL
	}
	var number unix.Errno
	if errors.As(err, &number) {
		return int(number)
	}
	if err != nil {
		return 255
	}
	return 0
}

func insert(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), params, 0)
}

func serve() error {
	if err := mountAll(); err != nil {
		return err
	}
	list, err := os.ReadFile("/modules/list")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := insert("/modules/"+name, ""); err != nil {
			return fmt.Errorf("driver %s: %w", name, err)
		}
	}
	words, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(string(words)) {
		switch word {
		case "guest.disk":
			if err := mountDisk(); err != nil {
				return err
			}
		case "guest.net":
			if err := network(); err != nil {
				return err
			}
		}
	}
	// From here on the console tells everything that the kernel says.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("8"), 0); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	return answer(call.NewStream(port))
}

func mountAll() error {
	for _, m := range [][3]string{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
		{"securityfs", "/sys/kernel/security", "securityfs"}, {"debugfs", "/sys/kernel/debug", "debugfs"},
		{"tmpfs", "/tmp", "tmpfs"}, {"tmpfs", "/run", "tmpfs"},
	} {
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mounting %s: %w", m[1], err)
		}
	}
	return os.Chmod("/tmp", 0o1777)
}

// appear waits for a device.
func appear(path string) error {
	for end := time.Now().Add(deviceTime); ; time.Sleep(2 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func mountDisk() error {
	if err := appear("/dev/vda"); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", "/disk", "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting the disk: %w", err)
	}
	return nil
}

// network gives the loopback and the one card their addresses. The host is on
// the card's own network, so that no route is needed.
func network() error {
	if err := appear("/sys/class/net/eth0"); err != nil {
		return err
	}
	return errors.Join(up("lo", []byte{127, 0, 0, 1}, []byte{255, 0, 0, 0}), up("eth0", []byte{10, 0, 2, 15}, []byte{255, 255, 255, 0}))
}

func up(name string, address, mask []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, set := range []struct {
		request uint
		value   []byte
	}{{unix.SIOCSIFADDR, address}, {unix.SIOCSIFNETMASK, mask}, {unix.SIOCSIFFLAGS, nil}} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if set.value == nil {
			r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		} else if err := r.SetInet4Addr(set.value); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, set.request, r); err != nil {
			return fmt.Errorf("network card %s: %w", name, err)
		}
	}
	return nil
}

// openPort finds the port by its name, which the driver learns a moment after
// the port itself.
func openPort() (*os.File, error) {
	for end := time.Now().Add(deviceTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == call.Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			}
		}
	}
	return nil, errors.New("the port to the host did not appear")
}

func powerOff() {
	unix.Sync()
	_ = unix.Unmount("/disk", 0) // there may be none
	fmt.Println("guest: power off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}
