package kernel

import (
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LoadArgument is the one argument by which the agent's own program, started
// again, is told to load a module and do nothing else.
const LoadArgument = "load-kernel-module"

// moduleFD is where the loader finds the module.
const moduleFD = 3

// LoadChild loads the module that it finds open into the kernel and returns the
// status to exit with: the kernel's error number, 0 for none. The program's main
// calls it first of all when LoadArgument is its only argument: an oops while
// the module starts ends the thread that loads it and leaves the process
// hanging, which must not be the agent.
func LoadChild() int {
	err := unix.FinitModule(moduleFD, "", 0)
	var number unix.Errno
	if errors.As(err, &number) {
		return int(number)
	}
	return 0
}

// loading is one module on its way into the kernel.
type loading struct {
	limit time.Duration
	taint uint64 // of the kernel before
	oops  bool   // the kernel failed meanwhile
}

// ended is how a loader ended.
type ended struct {
	number unix.Errno // the kernel's answer, 0 for none
	err    error      // it could not be started, or ended without an answer
	lost   bool       // it did not end
}

// load starts a loader with the module and waits until it has ended. One that
// does not end in time, or has to be given up since the kernel failed, is killed.
func (l *loading) load(b []byte) ended {
	file, err := inMemory(b)
	if err != nil {
		return ended{err: err}
	}
	defer file.Close() // its content is in the kernel by then, or not needed
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return ended{err: err}
	}
	defer null.Close() // nothing is written
	p, err := os.StartProcess("/proc/self/exe", []string{"livemend-agent", LoadArgument}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, file},
	})
	if err != nil {
		return ended{err: err}
	}
	over := make(chan ended, 1)
	go func() { // stays, with its loader, if the kernel never lets go of it
		state, err := p.Wait()
		switch {
		case err != nil:
			over <- ended{err: err}
		case state.ExitCode() < 0:
			over <- ended{err: errors.New("the loader ended with " + state.String())}
		default:
			over <- ended{number: unix.Errno(state.ExitCode())}
		}
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	// What the kernel has begun is waited for even when the caller has no more time.
	for end := time.Now().Add(l.limit); time.Now().Before(end) && !l.oops; {
		select {
		case e := <-over:
			l.look()
			return e
		case <-look.C:
			l.look()
		}
	}
	_ = p.Kill() // gone already: fine
	gone := time.NewTimer(killTime)
	defer gone.Stop()
	select {
	case e := <-over:
		return e
	case <-gone.C:
		return ended{lost: true}
	}
}

// look looks whether the kernel has failed.
func (l *loading) look() {
	l.oops = l.oops || readTaint()&^l.taint&TaintOops != 0
}

// inMemory returns a file that holds b and has no name.
func inMemory(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("livemend-module", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "livemend-module")
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Limits on what is read of the kernel's log.
const (
	maxRecord  = 8 << 10 // bytes of one record
	maxRecords = 1 << 16 // looked at once
	maxWords   = 1024    // bytes of what is kept for people
)

// kernelLog is a place in the kernel's log; -1 when it cannot be read.
type kernelLog int

// openLog opens the kernel's log at its end, or at its start.
func openLog(whence int) kernelLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if _, err := unix.Seek(fd, 0, whence); err != nil {
		unix.Close(fd)
		return -1
	}
	return kernelLog(fd)
}

func (l kernelLog) close() {
	if l >= 0 {
		unix.Close(int(l)) // only read
	}
}

// each calls visit with every line that the kernel itself has written since,
// until it returns false.
func (l kernelLog) each(visit func(text string) bool) {
	if l < 0 {
		return
	}
	buf := make([]byte, maxRecord)
	for range maxRecords {
		n, err := unix.Read(int(l), buf)
		switch {
		case err == unix.EINTR, err == unix.EPIPE, err == unix.EINVAL: // overwritten, or too long
			continue
		case err != nil:
			return
		}
		if text, ok := LogLine(string(buf[:n])); ok && !visit(text) {
			return
		}
	}
}

// about returns the lines since that speak of a module, of live patches or of
// loading, for people.
func (l kernelLog) about(name string) string {
	var words string
	l.each(func(text string) bool {
		if strings.Contains(text, name) || strings.Contains(text, "livepatch") || strings.Contains(text, "odule") || strings.Contains(text, "Lockdown") || strings.Contains(text, "ELF") {
			if words != "" {
				words += " / "
			}
			words += text
		}
		return len(words) < maxWords
	})
	return words[:min(len(words), maxWords)]
}
