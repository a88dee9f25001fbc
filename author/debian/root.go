package debian

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed root.sh
var rootScript string

// holdScript keeps the layers of a throw-away root in memory until nobody holds
// the other end of its input, and then ends everything that runs in it.
const holdScript = `set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755,size=80% tmpfs "$1"
mkdir "$1/` + depsLayer + `"
mount -t proc proc /proc
echo ready
while read -r line; do :; done`

// searchPath finds the programs that make and enter a root.
const searchPath = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// readyWithin bounds how long a root may take to start.
const readyWithin = 30 * time.Second

// root is a throw-away root: layers in memory over a folder that is never
// written, in namespaces of its own. It ends with this process at the latest.
// It keeps builds apart; it does not hold back what means harm.
type root struct {
	base, work, lower string

	hold  *exec.Cmd
	alive io.WriteCloser
}

// startRoot makes a root over lower that sees the folder work.
func startRoot(ctx context.Context, lower, work string) (*root, error) {
	r := &root{base: filepath.Join(work, "layers"), work: work, lower: lower}
	if err := os.MkdirAll(r.base, 0o755); err != nil {
		return nil, err
	}
	r.hold = exec.Command("sh", "-c", holdScript, "livemend-root", r.base)
	r.hold.Env = []string{searchPath}
	r.hold.Dir = "/"
	var problems strings.Builder
	r.hold.Stderr = &problems
	r.hold.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Setsid: true}
	alive, err := r.hold.StdinPipe()
	if err != nil {
		return nil, err
	}
	says, err := r.hold.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.hold.Start(); err != nil {
		return nil, fmt.Errorf("a root of its own needs the right to make namespaces: %w", err)
	}
	r.alive = alive
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(says, 4096)).ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		answer <- line
	}()
	timeout := time.NewTimer(readyWithin)
	defer timeout.Stop()
	select {
	case line := <-answer:
		if line == "ready\n" {
			return r, nil
		}
		err = errors.New("its first program ended")
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = errors.New("it did not get ready in " + readyWithin.String())
	}
	err = errors.Join(err, r.close())
	return nil, fmt.Errorf("start a throw-away root: %w %s", err, strings.TrimSpace(problems.String()))
}

// close ends everything in the root and waits until it is gone.
func (r *root) close() error {
	err := r.alive.Close()
	if killErr := r.hold.Process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
		return errors.Join(err, killErr)
	}
	// How it ends says nothing: it is killed on purpose.
	_ = r.hold.Wait()
	return err
}

// depsLayer holds the packages that builds need.
const depsLayer = "deps"

// command runs a program in the root, writing into the named layer. Layers
// other than depsLayer lie over it. Changes of one layer are seen by later
// commands of it; commands of one layer must not run at the same time.
func (r *root) command(ctx context.Context, log io.Writer, layer string, args ...string) error {
	lower := r.lower
	if layer != depsLayer {
		lower = filepath.Join(r.base, depsLayer) + ":" + lower
	}
	enter := []string{"--target", strconv.Itoa(r.hold.Process.Pid), "--mount", "--pid", "--",
		"unshare", "--mount", "--", "sh", "-c", rootScript, "livemend-root", r.base, r.work, lower, layer}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{searchPath}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w", strings.Join(args[:min(len(args), 3)], " "), err))
	}
	return nil
}
