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

// LoadChild waits for a byte on its standard input, loads the module that it
// finds open into the kernel, and writes the kernel's error number, 0 for none,
// as one byte to its standard output. It returns the status to exit with. The
// program's main calls it first of all when LoadArgument is its only argument: an
// oops while the module starts ends the thread that loads it and leaves the
// process hanging, which must not be the agent.
func LoadChild() int {
	var b [1]byte
	if err := unix.SetNonblock(0, false); err != nil { // as the agent's end is
		return 1
	}
	if n, err := unix.Read(0, b[:]); err != nil || n != 1 {
		return 0 // nothing is to be loaded after all
	}
	b[0] = 0
	var number unix.Errno
	if err := unix.FinitModule(moduleFD, "", 0); errors.As(err, &number) {
		b[0] = byte(number) // the highest is 133
	}
	if _, err := unix.Write(1, b[:]); err != nil {
		return 1
	}
	return 0
}

// loader is a process that waits for its module.
type loader struct {
	process *os.Process
	module  *os.File // that it will load, empty yet
	start   *os.File // written to when it is there
	answer  *os.File
}

// newLoader starts a loader.
func newLoader() (l *loader, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	fd, err := unix.MemfdCreate("livemend-module", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l = &loader{module: os.NewFile(uintptr(fd), "module")}
	files = append(files, l.module)
	in, start, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.start = start
	files = append(files, in, start)
	answer, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.answer = answer
	files = append(files, answer, out)
	l.process, err = os.StartProcess("/proc/self/exe", []string{"livemend-agent", LoadArgument}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{in, out, nil, l.module},
	})
	if err != nil {
		return nil, err
	}
	return l, errors.Join(in.Close(), out.Close())
}

// end closes what leads to a loader; one that still waits then ends. It is
// reaped when the kernel lets go of it.
func (l *loader) end() {
	for _, f := range []*os.File{l.start, l.answer, l.module} {
		_ = f.Close() // nothing is in it that could be lost
	}
	go func() { _, _ = l.process.Wait() }()
}

// Prepare starts what the next Apply will need, so that it need not wait for it.
// Call it when a patch is about to be fetched or verified. It is only quicker
// with it; what it starts takes little memory and ends with the agent.
func (e *Engine) Prepare() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.prepared == nil {
		e.prepared, _ = newLoader() // Apply tries again, and tells
	}
}

// ended is how a loader ended.
type ended struct {
	number unix.Errno // the kernel's answer, 0 for none
	err    error      // it could not be started, or gave no answer
	oops   bool       // the kernel failed meanwhile
}

// run has a loader load the module and waits for the kernel's answer, at most as
// long as limit. A loader that gives none in time, or has to be given up since
// the kernel failed, is killed. taint is the kernel's before.
func (e *Engine) run(b []byte, taint uint64) ended {
	l := e.prepared
	e.prepared = nil
	if l == nil {
		var err error
		if l, err = newLoader(); err != nil {
			return ended{err: err}
		}
	}
	defer l.end()
	if _, err := l.module.Write(b); err != nil {
		return ended{err: err}
	}
	if _, err := l.start.Write([]byte{1}); err != nil {
		return ended{err: err}
	}
	failed := func() bool { return readTaint()&^taint&TaintOops != 0 }
	// What the kernel has begun is waited for even when the caller has no more time.
	for end := time.Now().Add(e.options.LoadTime); time.Now().Before(end); {
		if err := l.answer.SetReadDeadline(time.Now().Add(lookEvery)); err != nil {
			return ended{err: err}
		}
		var answer [1]byte
		n, err := l.answer.Read(answer[:])
		switch {
		case n == 1:
			return ended{number: unix.Errno(answer[0])}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return ended{err: errors.New("the loader ended without an answer"), oops: failed()}
		case failed():
			_ = l.process.Kill() // gone already: fine
			return ended{err: errors.New("the kernel failed while the loader was in it"), oops: true}
		}
	}
	_ = l.process.Kill()
	return ended{err: errors.New("the loader did not end in time")}
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
