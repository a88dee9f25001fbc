package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"livemend.dev/livemend/internal/guest/call"
)

// answer does what the host asks until it asks to power off. Requests are
// carried out side by side.
func answer(s *call.Stream) error {
	if err := s.Send(&call.Reply{}); err != nil {
		return err
	}
	var mu sync.Mutex
	running := map[uint64]context.CancelFunc{}
	for {
		var r call.Request
		if err := s.Receive(&r); err != nil {
			return err
		}
		switch {
		case r.PowerOff:
			return s.Send(&call.Reply{ID: r.ID})
		case r.Kill != 0:
			mu.Lock()
			if end := running[r.Kill]; end != nil {
				end()
			}
			mu.Unlock()
		case r.Run != nil:
			ctx, end := context.WithCancel(context.Background())
			mu.Lock()
			running[r.ID] = end
			mu.Unlock()
			go func() {
				run(ctx, s, r.ID, r.Run)
				mu.Lock()
				delete(running, r.ID)
				mu.Unlock()
				end()
			}()
		case r.Put != nil:
			go reply(s, r.ID, nil, put(r.Put))
		default:
			go func() {
				b, err := os.ReadFile(r.Get)
				reply(s, r.ID, b, err)
			}()
		}
	}
}

// reply sends what a request gave. When the host cannot be reached any more,
// answer notices.
func reply(s *call.Stream, id uint64, b []byte, err error) {
	answer := call.Reply{ID: id, Data: b}
	if err != nil {
		answer.Err = err.Error()
	}
	_ = s.Send(&answer)
}

func put(f *call.File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, f.Data, os.FileMode(f.Mode))
}

func run(ctx context.Context, s *call.Stream, id uint64, c *call.Command) {
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	ctx, end := context.WithTimeout(ctx, c.Timeout)
	defer end()
	if len(c.Args) == 0 {
		reply(s, id, nil, errors.New("no program is named"))
		return
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &errs, bytes.NewReader(c.Stdin)
	cmd.Env, cmd.Dir = append([]string{"PATH=/bin:/sbin:/usr/bin", "HOME=/tmp"}, c.Env...), c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.UID}
	}
	// The whole session ends: what a program leaves behind would keep its output open.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		reply(s, id, nil, err)
		return
	}
	_ = s.Send(&call.Reply{ID: id, PID: cmd.Process.Pid})
	err := cmd.Wait()
	r := call.Result{TimedOut: errors.Is(ctx.Err(), context.DeadlineExceeded), Stdout: out.Bytes(), Stderr: errs.Bytes()}
	if cmd.ProcessState == nil {
		reply(s, id, nil, errors.Join(err, io.ErrUnexpectedEOF))
		return
	}
	r.Exit = cmd.ProcessState.ExitCode()
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		r.Signal = int(w.Signal())
	}
	_ = s.Send(&call.Reply{ID: id, Done: &r})
}
