// Package guest boots the distribution's real kernels in QEMU for tests of live
// patching, and runs programs in them. It is test support only: no product may
// link it, and it never touches the kernel of the machine that it runs on.
//
// The kernel's packages are downloaded, pinned by their SHA-256, and unpacked
// into a cache; they are not installed. The guest's first process is ours
// (folder init); the host talks to it over a port of the machine. Plain
// emulation is used: it boots everywhere, in a few seconds.
//
//	g := guest.Boot(t, guest.Config{Kernel: guest.Debian61})
//	r := g.Run(guest.Command{Args: []string{"/bin/oracle"}, UID: 65534})
//
// A guest ends with its test, and with the test's program however that ends.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/internal/guest/call"
)

// Command is a program to run in a guest, and Result how it ended.
type (
	Command = call.Command
	Result  = call.Result
)

// HostAddress is the host as a guest with a network sees it: a server that
// listens on the host's 127.0.0.1 is reached there.
const HostAddress = "10.0.2.2"

// Times and sizes; generous, since tests share few processors.
const (
	bootTime = 3 * time.Minute
	endTime  = time.Minute
	memory   = 512 // megabytes when the configuration names none
	maxLog   = 16 << 20
)

// ErrEnded says that the guest is not running any more.
var ErrEnded = errors.New("the guest has ended")

// Config is a guest to boot.
type Config struct {
	Kernel  Kernel
	SMP     int               // processors, 1 when 0
	Memory  int               // megabytes, enough for small tests when 0
	Append  string            // more words for the kernel's command line
	Network bool              // a card; the host is HostAddress
	Disk    string            // image that MakeDisk made, mounted on /disk; "" for none
	Files   map[string]string // path in the guest: file of the host; everybody may run it
}

// Guest is a running machine. Its methods may be used concurrently.
type Guest struct {
	qemu   *exec.Cmd
	stream *call.Stream
	port   *os.File
	serial *os.File
	ended  chan struct{} // closed when QEMU is gone and its console was read

	mu      sync.Mutex
	changed chan struct{} // closed and renewed when the console grew or a reply came
	log     bytes.Buffer
	ready   bool
	lastID  uint64
	pending map[uint64]*Process
}

// Process is a program that runs in a guest.
type Process struct {
	PID     int
	guest   *Guest
	id      uint64
	started chan struct{}
	done    chan struct{}
	result  Result
	data    []byte
	err     error
}

// MakeDisk makes an image with an empty ext4 file system, which outlives the
// guests that use it one after the other.
func MakeDisk(ctx context.Context, path string, megabytes int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close()); err != nil {
		return err
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/sbin/mkfs.ext4" // not on everybody's path
	}
	if out, err := exec.CommandContext(ctx, mkfs, "-q", "-F", path).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: mkfs.ext4: %w: %s", ErrUnavailable, err, out)
	}
	return nil
}

// Start boots a guest and returns when its first process is ready.
func Start(ctx context.Context, c Config) (*Guest, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf("%w: QEMU is not installed (qemu-system-x86): %w", ErrUnavailable, err)
	}
	kernel, err := c.Kernel.Unpack(ctx)
	if err != nil {
		return nil, err
	}
	initial, err := c.initial(ctx, kernel)
	if err != nil {
		return nil, err
	}
	initrd, err := inMemory(initial)
	if err != nil {
		return nil, err
	}
	defer initrd.Close() // QEMU has it by then
	g := &Guest{ended: make(chan struct{}), changed: make(chan struct{}), pending: map[uint64]*Process{}}
	var ends [2]*os.File // QEMU's
	if g.serial, ends[0], err = pair(); err != nil {
		return nil, err
	}
	if g.port, ends[1], err = pair(); err != nil {
		return nil, errors.Join(err, g.serial.Close(), ends[0].Close())
	}
	g.stream = call.NewStream(g.port)
	g.qemu = exec.Command(qemu, c.arguments(filepath.Join(kernel, "vmlinux"))...)
	g.qemu.ExtraFiles = append(ends[:], initrd) // 3, 4 and 5
	g.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	g.qemu.Stdout, g.qemu.Stderr = &said, &said
	if err := g.start(); err != nil {
		return nil, errors.Join(err, g.serial.Close(), g.port.Close(), ends[0].Close(), ends[1].Close())
	}
	ends[0].Close()
	ends[1].Close()
	go g.replies()
	limit := time.NewTimer(bootTime)
	defer limit.Stop()
	if err := g.until(ctx, limit.C, func() bool { return g.ready }); err != nil {
		g.Kill()
		return nil, fmt.Errorf("the guest did not come up: %w\n%s\n%s", err, said.String(), g.Log())
	}
	return g, nil
}

// pair returns both ends of a connection.
func pair() (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}

// inMemory returns a file that holds b and has no name, so that it is gone with
// whoever uses it.
func inMemory(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("initrd", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "initrd")
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (c *Config) arguments(vmlinux string) []string {
	words := []string{"console=ttyS0 quiet panic=-1 no_timer_check audit=0"}
	args := []string{
		"-accel", "tcg,thread=multi,tb-size=256", "-M", "pc,usb=off", "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-m", strconv.Itoa(max(c.Memory, memory)), "-smp", strconv.Itoa(max(c.SMP, 1)), "-kernel", vmlinux, "-initrd", "/proc/self/fd/5",
		"-chardev", "socket,id=console,fd=3", "-serial", "chardev:console",
		"-chardev", "socket,id=port,fd=4", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=" + call.Port,
	}
	if c.Network {
		words = append(words, "guest.net")
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	if c.Disk != "" {
		words = append(words, "guest.disk")
		args = append(args, "-drive", "file="+c.Disk+",if=none,id=disk,format=raw", "-device", "virtio-blk-pci,drive=disk")
	}
	return append(args, "-append", strings.Join(append(words, c.Append), " "))
}

// initial makes the guest's first file system.
func (c *Config) initial(ctx context.Context, kernel string) ([]byte, error) {
	program, err := initProgram(ctx)
	if err != nil {
		return nil, err
	}
	var a archive
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "disk", "bin", "etc", "var"} {
		a.dir(dir)
	}
	a.file("init", 0o755, program)
	a.file("etc/passwd", 0o644, []byte("root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n"))
	var list []byte
	for _, name := range drivers {
		if strings.Contains(name, "net") && !c.Network || name == "failover" && !c.Network {
			continue
		}
		b, err := os.ReadFile(filepath.Join(kernel, name+".ko"))
		if errors.Is(err, os.ErrNotExist) {
			continue // built in
		}
		if err != nil {
			return nil, err
		}
		a.file("modules/"+name+".ko", 0o644, b)
		list = append(list, name+".ko\n"...)
	}
	a.file("modules/list", 0o644, list)
	var paths []string
	for path := range c.Files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		b, err := os.ReadFile(c.Files[path])
		if err != nil {
			return nil, err
		}
		a.file(path, 0o755, b)
	}
	return a.bytes(), nil
}

// start starts QEMU from a thread that lives as long as it: the kernel ends QEMU
// when that thread goes, which is when this whole program does.
func (g *Guest) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := g.qemu.Start()
		started <- err
		if err != nil {
			return
		}
		read := make(chan struct{})
		go func() { defer close(read); g.console() }()
		_ = g.qemu.Wait() // however it ended, it did
		<-read
		g.port.Close()
		close(g.ended)
	}()
	return <-started
}

// console keeps what the guest's console says.
func (g *Guest) console() {
	defer g.serial.Close()
	buf := make([]byte, 4096)
	for {
		n, err := g.serial.Read(buf)
		g.mu.Lock()
		if g.log.Len() < maxLog {
			g.log.Write(bytes.ReplaceAll(buf[:n], []byte("\r"), nil))
		}
		g.tell()
		g.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// tell wakes those who wait for a change. The caller holds g.mu.
func (g *Guest) tell() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// until waits for a condition, which is asked with g.mu held, once more after
// the guest ended.
func (g *Guest) until(ctx context.Context, limit <-chan time.Time, ok func() bool) error {
	for over := false; ; {
		g.mu.Lock()
		yes, changed := ok(), g.changed
		g.mu.Unlock()
		switch {
		case yes:
			return nil
		case over:
			return ErrEnded
		}
		select {
		case <-changed:
		case <-g.ended:
			over = true
		case <-limit:
			return errors.New("it took too long")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replies hands out what the guest answers.
func (g *Guest) replies() {
	for {
		var r call.Reply
		err := g.stream.Receive(&r)
		g.mu.Lock()
		if err != nil {
			for _, p := range g.pending {
				p.finish(ErrEnded)
			}
			clear(g.pending)
			g.mu.Unlock()
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				g.Kill() // nothing can be asked any more
			}
			return
		}
		p := g.pending[r.ID]
		switch {
		case r.ID == 0:
			g.ready = true
		case p == nil:
		case r.PID != 0:
			p.PID = r.PID
			close(p.started)
		default:
			delete(g.pending, r.ID)
			p.data = r.Data
			if r.Done != nil {
				p.result = *r.Done
			}
			var err error
			if r.Err != "" {
				err = errors.New(r.Err)
			}
			p.finish(err)
		}
		g.tell()
		g.mu.Unlock()
	}
}

// finish ends a process; who removed it from g.pending does so.
func (p *Process) finish(err error) {
	p.err = err
	close(p.done)
}
