package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startWithin = 60 * time.Second // until a program says that it is ready
	stopWithin  = 10 * time.Second // until a program that was asked to end is killed
)

// Program is a running program of the product.
type Program struct {
	name string
	cmd  *exec.Cmd
	log  string // file with everything that it wrote

	mu    sync.Mutex
	lines []string      // of standard output
	more  chan struct{} // closed and replaced at every new line
	ended chan struct{} // closed when the program has been waited for
	err   error         // how it ended; read after ended is closed
}

// spawner starts programs from one thread that lives as long as this process,
// because the kernel ties "end with your parent" to the thread that started it.
type spawner struct{ todo chan func() }

func newSpawner() *spawner {
	s := &spawner{todo: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.todo {
			f()
		}
	}()
	return s
}

// close ends the thread, and with it every program that still runs.
func (s *spawner) close() error {
	close(s.todo)
	return nil
}

// start runs a program with its log in folder logs. It ends with this process.
func (s *spawner) start(logs, name string, env []string, path string, args ...string) (*Program, error) {
	p := &Program{name: name, log: filepath.Join(logs, name+".log"), more: make(chan struct{}), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	started := make(chan error)
	s.todo <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	go func() {
		defer close(p.ended)
		readErr := p.read(out, log)
		p.err = errors.Join(p.cmd.Wait(), readErr, log.Close())
	}()
	return p, nil
}

// read keeps every line of the program's output and copies it to the log.
func (p *Program) read(out io.Reader, log io.Writer) error {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if _, werr := io.WriteString(log, line); werr != nil {
			return werr
		}
		if line != "" {
			p.mu.Lock()
			p.lines = append(p.lines, strings.TrimRight(line, "\n"))
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Line waits for a line of output that starts with prefix and returns the rest.
func (p *Program) Line(ctx context.Context, prefix string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for seen := 0; ; {
		p.mu.Lock()
		lines, more := p.lines, p.more
		p.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if rest, ok := strings.CutPrefix(lines[seen], prefix); ok {
				return rest, nil
			}
		}
		select {
		case <-more:
		case <-p.ended:
			return "", fmt.Errorf("%s ended before it said %q: %w\n%s", p.name, prefix, errors.Join(p.err, errEnded), tail(p.log))
		case <-ctx.Done():
			return "", fmt.Errorf("%s did not say %q: %w\n%s", p.name, prefix, ctx.Err(), tail(p.log))
		}
	}
}

var errEnded = errors.New("the program has ended")

// tail returns the end of a log, or why it cannot be read.
func tail(path string) string {
	const lines = 25
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Stop asks the program to end, and kills it when it does not. Stopping a
// program that has ended is no error.
func (p *Program) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(stopWithin)
	defer timeout.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timeout.C:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return fmt.Errorf("%s did not end within %s and was killed", p.name, stopWithin)
}
