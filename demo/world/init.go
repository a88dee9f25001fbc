package world

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	initName   = "livemend-demo-init"
	readyWord  = "ready"
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	lifeFD  = 3 // closed by the kernel when the starter is gone
	readyFD = 4
)

// MaybeInit turns the process into a server's init when it was started as one;
// then it never returns. Otherwise it does nothing.
func MaybeInit() {
	if len(os.Args) < 3 || os.Args[0] != initName {
		return
	}
	say := os.NewFile(readyFD, "ready")
	answer := readyWord
	err := prepare(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		answer = err.Error()
	}
	// The starter reads until the end of file, so close even if nobody listens.
	if _, werr := io.WriteString(say, answer); err != nil || werr != nil || say.Close() != nil {
		os.Exit(1)
	}
	go reap()
	// Nothing is ever written: reading ends when the starter has gone.
	_, _ = io.Copy(io.Discard, os.NewFile(lifeFD, "life"))
	os.Exit(0)
}

// reap waits for orphans, which the kernel hands to a namespace's init.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for range children {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}

// machineFolders are laid over the server's root by themselves when the machine
// has them on file systems of their own: an overlay does not look through mounts.
var machineFolders = []string{"/usr", "/var", "/etc", "/opt", "/boot"}

// base is where the server's memory is mounted until its root is in place. The
// mount is seen by this namespace only, so the machine's /tmp is untouched.
const base = "/tmp"

// prepare builds the server around the calling process.
func prepare(name, machineID string, hide []string) error {
	root := filepath.Join(base, "root")
	steps := []func() error{
		func() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return mount("tmpfs", base, "tmpfs", 0, "mode=0755") },
		func() error { return overlay("/", root, "") },
		func() error { return overlays(root) },
		func() error { return devices(root) },
		func() error { return own(root, hide) },
		func() error { return enter(root) },
		func() error { return unix.Sethostname([]byte(name)) },
		func() error { return os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644) },
		func() error { return os.WriteFile("/etc/machine-id", []byte(machineID+"\n"), 0o444) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// overlay lays an empty layer in memory over lower and mounts both at target.
func overlay(lower, target, label string) error {
	upper, work := filepath.Join(base, "upper"+label), filepath.Join(base, "work"+label)
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", target, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
}

// overlays repeats overlay for those machine folders that are mount points.
func overlays(root string) error {
	var top unix.Stat_t
	if err := unix.Lstat("/", &top); err != nil {
		return err
	}
	for _, dir := range machineFolders {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Dev == top.Dev {
			continue
		}
		if err := overlay(dir, filepath.Join(root, dir), "-"+strings.Trim(dir, "/")); err != nil {
			return err
		}
	}
	return nil
}

// own gives the server what it does not share, and hides what it must not see.
func own(root string, hide []string) error {
	mounts := []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"sysfs", "/sys", "", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, m := range mounts {
		at := filepath.Join(root, m.at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := mount(m.kind, at, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	for _, dir := range hide {
		at := filepath.Join(root, dir)
		if _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) {
			continue // inside a folder that is hidden already
		}
		if err := mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, "mode=0755"); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(root, "run/lock"), 0o1777)
}

// devices makes a /dev with the few devices that programs expect.
func devices(root string) error {
	dev := filepath.Join(root, "dev")
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		node := filepath.Join(dev, name)
		f, err := os.Create(node)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := mount("/dev/"+name, node, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	shm := filepath.Join(dev, "shm")
	if err := os.Mkdir(shm, 0o1777); err != nil {
		return err
	}
	if err := mount("tmpfs", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	return os.Symlink("/proc/self/fd", filepath.Join(dev, "fd"))
}

// enter makes root the root and lets go of the machine's.
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// The same folder twice stacks the old root on top of the new one, so that
	// no folder is needed for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	return os.Chdir("/")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

func newMachineID() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(id[:]), nil
}
