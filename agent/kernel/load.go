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
	// The agent has better things to do now than to share its processor with the
	// end of this process: it says when.
	_, _ = unix.Read(0, b[:])
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
func newLoader() (*loader, error) {
	var fds [5]int // the module; what the loader reads, and its other end; the answer, and its other end
	for i := range fds {
		fds[i] = -1
	}
	var err error
	if fds[0], err = unix.MemfdCreate("livemend-module", unix.MFD_CLOEXEC); err == nil {
		if err = unix.Pipe2(fds[1:3], unix.O_CLOEXEC); err == nil {
			err = unix.Pipe2(fds[3:5], unix.O_CLOEXEC)
		}
	}
	var files [len(fds)]*os.File
	for i, fd := range fds {
		if fd >= 0 {
			files[i] = os.NewFile(uintptr(fd), "loader")
		}
	}
	l := &loader{module: files[0], start: files[2], answer: files[3]}
	if err == nil {
		l.process, err = os.StartProcess("/proc/self/exe", []string{"livemend-agent", LoadArgument}, &os.ProcAttr{
			Dir: "/", Env: []string{}, Files: []*os.File{files[1], files[4], nil, l.module},
		})
	}
	theirs := []*os.File{files[1], files[4]}
	if err != nil {
		theirs = files[:]
	}
	for _, f := range theirs {
		if f != nil {
			_ = f.Close() // nothing is in it
		}
	}
	return l, err
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
		if l, err := newLoader(); err == nil { // else Apply tries again, and tells
			e.prepared = l
		}
	}
	_, _ = e.identity() // the same
}

// loader returns the loader that was prepared, or another one.
func (e *Engine) loader() (*loader, error) {
	if l := e.prepared; l != nil {
		e.prepared = nil
		return l, nil
	}
	return newLoader()
}

// ended is how a loader ended.
type ended struct {
	number unix.Errno // the kernel's answer, 0 for none
	err    error      // it could not be started, or gave no answer
	oops   bool       // the kernel failed meanwhile
}

// run has the loader load a module and waits for the kernel's answer, at most as
// long as limit. One that gives none in time, or has to be given up since the
// kernel failed, is killed.
func (l *loader) run(b []byte, limit time.Duration, failed func() bool) ended {
	if _, err := l.module.Write(b); err != nil {
		return ended{err: err}
	}
	if _, err := l.start.Write([]byte{1}); err != nil {
		return ended{err: err}
	}
	// What the kernel has begun is waited for even when the caller has no more
	// time.
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if number, err, over := l.wait(lookEvery); over {
			return ended{number, err, err != nil && failed()}
		}
		if failed() {
			_ = l.process.Kill() // gone already: fine
			_, _, _ = l.wait(killTime)
			return ended{err: errors.New("the kernel failed while the loader was in it"), oops: true}
		}
	}
	_ = l.process.Kill()
	_, _, _ = l.wait(killTime)
	return ended{err: errors.New("the loader did not end in time")}
}

// wait waits for the kernel's answer, or for the loader's end without one, in
// this very thread, which is quickest. It is not over when the time is.
func (l *loader) wait(limit time.Duration) (number unix.Errno, err error, over bool) {
	fds := []unix.PollFd{{Fd: int32(l.answer.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(limit/time.Millisecond))
	switch {
	case err == unix.EINTR:
		return 0, nil, false
	case err != nil:
		return 0, err, true
	case n == 0:
		return 0, nil, false
	}
	var answer [1]byte
	if n, err := l.answer.Read(answer[:]); err != nil || n != 1 {
		return 0, errors.New("the loader ended without an answer"), true
	}
	return unix.Errno(answer[0]), nil, true
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

// witness hears what the kernel says while a module is loaded.
type witness struct {
	log   kernelLog
	name  string // of the module
	taint uint64 // before
	words string // about the module, about live patches or about loading
	sick  bool   // the kernel failed
}

// failed reports whether the kernel has failed since.
func (w *witness) failed() bool {
	w.listen()
	return w.sick || readTaint()&^w.taint&TaintOops != 0
}

// about returns what the kernel has said, for people.
func (w *witness) about() string {
	w.listen()
	return w.words[:min(len(w.words), maxWords)]
}

func (w *witness) listen() {
	w.log.each(func(text string) bool {
		sick := Symptom(text) != "" && !strings.HasPrefix(text, "WARNING")
		w.sick = w.sick || sick
		about := sick
		for _, word := range []string{w.name, "livepatch", "odule", "Lockdown", "ELF"} {
			about = about || strings.Contains(text, word)
		}
		if about && len(w.words) < maxWords {
			if w.words != "" {
				w.words += " / "
			}
			w.words += text
		}
		return true
	})
}
