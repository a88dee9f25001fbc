package signer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxStderr is how much of the child's last words is logged, in bytes.
const maxStderr = 4096

// process is one running child.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *os.File
	stderr *tail
	exited chan struct{}
	err    error // of Wait; read after exited is closed
}

func startProcess(argv []string) (*process, error) {
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), stderr: &tail{}, exited: make(chan struct{})}
	p.cmd.Env = []string{} // not nil: nil would hand on the parent's, secrets included
	p.cmd.Stderr = p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the signer: %w", err)
	}
	// A pipe of our own: Wait closes StdoutPipe under whoever still reads it.
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the signer: %w", errors.Join(err, p.in.Close()))
	}
	p.out, p.cmd.Stdout = out, theirs
	err = p.cmd.Start()
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, fmt.Errorf("starting the signer: %w", errors.Join(err, out.Close()))
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) dead() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// ask sends req and waits for its answer. After an error the process has to be
// ended, which also ends what ask may have left waiting.
func (p *process) ask(ctx context.Context, req request) (answer, error) {
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		if o.err = writeFrame(p.in, req); o.err == nil {
			o.err = readFrame(p.out, &o.answer)
		}
		done <- o
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// end kills the process, waits for it and returns its last words.
func (p *process) end() string {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err == nil {
		<-p.exited
	}
	return strings.TrimSpace(p.stderr.String() + " " + errorText(errors.Join(err, p.out.Close())))
}

// close lets the process end by itself, and kills it when it does not.
func (p *process) close() error {
	err := p.in.Close()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-p.exited:
		return errors.Join(err, p.err, p.out.Close())
	case <-timer.C:
		return errors.Join(err, errors.New("the signer did not end by itself and was killed: "+p.end()))
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxStderr; over > 0 {
		t.buf = slices.Delete(t.buf, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
