package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"livemend.dev/livemend/internal/guest/call"
)

var building sync.Mutex
var built []byte // the guest's first process, once it was built

func initProgram(ctx context.Context) ([]byte, error) {
	building.Lock()
	defer building.Unlock()
	if built != nil {
		return built, nil
	}
	b, err := Program(ctx, "livemend.dev/livemend/internal/guest/init")
	if err == nil {
		built = b
	}
	return b, err
}

// Program builds a Go program, statically, as a guest can run it.
func Program(ctx context.Context, importPath string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out}, flags...), importPath)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w\n%s", importPath, err, text)
	}
	return os.ReadFile(out)
}

// ask sends a request; its answer comes to the process that is returned.
func (g *Guest) ask(r call.Request) (*Process, error) {
	g.mu.Lock()
	g.lastID++
	r.ID = g.lastID
	p := &Process{guest: g, id: r.ID, started: make(chan struct{}), done: make(chan struct{})}
	g.pending[r.ID] = p
	g.mu.Unlock()
	if err := g.stream.Send(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	return p, nil
}

// answer waits for the answer to a request.
func (g *Guest) answer(r call.Request) ([]byte, error) {
	p, err := g.ask(r)
	if err != nil {
		return nil, err
	}
	_, err = p.wait()
	return p.data, err
}

// Start starts a program and returns when it runs.
func (g *Guest) Start(c Command) (*Process, error) {
	p, err := g.ask(call.Request{Run: &c})
	if err != nil {
		return nil, err
	}
	select {
	case <-p.started:
		return p, nil
	case <-p.done:
		return nil, p.err
	case <-g.ended:
		return nil, ErrEnded
	}
}

// Run runs a program to its end. An error means that it could not be started or
// that the guest ended.
func (g *Guest) Run(c Command) (Result, error) {
	p, err := g.Start(c)
	if err != nil {
		return Result{}, err
	}
	return p.Wait()
}

// Wait waits until the program has ended.
func (p *Process) Wait() (Result, error) { return p.wait() }

func (p *Process) wait() (Result, error) {
	select {
	case <-p.done:
		return p.result, p.err
	case <-p.guest.ended:
	}
	select {
	case <-p.done:
		return p.result, p.err
	default:
		return Result{}, ErrEnded
	}
}

// Kill ends the program and its session; Wait tells when it is done.
func (p *Process) Kill() error { return p.guest.stream.Send(&call.Request{Kill: p.id}) }

// Put writes a file, with its folders, that everybody may read and run.
func (g *Guest) Put(path string, b []byte) error {
	_, err := g.answer(call.Request{Put: &call.File{Path: path, Data: b, Mode: 0o755}})
	return err
}

// Get reads a file.
func (g *Guest) Get(path string) ([]byte, error) { return g.answer(call.Request{Get: path}) }

// Insert loads a module into the guest's kernel; the error is the kernel's, a
// syscall.Errno. A module that hangs the caller is given up after a minute.
func (g *Guest) Insert(module []byte, params string) error {
	const path = "/tmp/insert.ko"
	if err := g.Put(path, module); err != nil {
		return err
	}
	return g.tool("insert", path, params)
}

// Remove unloads a module; the error is the kernel's, a syscall.Errno.
func (g *Guest) Remove(name string) error { return g.tool("remove", name) }

func (g *Guest) tool(args ...string) error {
	r, err := g.Run(Command{Args: append([]string{"/init"}, args...)})
	switch {
	case err != nil:
		return err
	case r.TimedOut || r.Exit < 0:
		return fmt.Errorf("%s: it did not return and was killed", args)
	case r.Exit != 0:
		return syscall.Errno(r.Exit)
	}
	return nil
}

// Log returns what the console said so far.
func (g *Guest) Log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// Expect waits until the console has said text, at any time since the start.
func (g *Guest) Expect(ctx context.Context, text string, within time.Duration) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	err := g.until(ctx, limit.C, func() bool { return containsText(&g.log, text) })
	if err != nil {
		return fmt.Errorf("the console did not say %q: %w", text, err)
	}
	return nil
}

// Wait waits until the machine has ended by itself: it powers off after a panic,
// as QEMU does not start it again.
func (g *Guest) Wait(ctx context.Context, within time.Duration) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-g.ended:
		return nil
	case <-limit.C:
		return fmt.Errorf("the guest is still running after %v", within)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PowerOff ends the guest in good order: its disk is unmounted.
func (g *Guest) PowerOff(ctx context.Context) error {
	if err := g.stream.Send(&call.Request{PowerOff: true}); err != nil {
		return fmt.Errorf("%w: %w", ErrEnded, err)
	}
	return g.Wait(ctx, endTime)
}

// Kill ends the guest at once, as a power cut does, and returns when it has.
// What the guest did not yet write to its disk is lost.
func (g *Guest) Kill() {
	_ = g.qemu.Process.Kill() // an error means that it has ended
	<-g.ended
}
