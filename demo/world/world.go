// Package world makes demo servers: each a pid, mount and uts namespace of its
// own over an overlay of the machine's root, with its own hostname, machine-id,
// /proc, /run, /tmp and /dev, and an init that reaps. What a server writes
// lives in memory and is gone with it. The network is the machine's.
//
// A server ends with the process that started it, however that one ends: the
// init holds one end of a pipe and leaves when the other end closes, and the
// kernel then ends every process of the namespace.
//
// It is no sandbox: root inside is root. It must not know what the servers are
// for. The program that uses it calls MaybeInit first thing in main.
package world

import (
	"bytes"
	"context"
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

// readyWithin bounds how long a server may take to start.
const readyWithin = 30 * time.Second

// ErrEnded is returned for a server that has ended.
var ErrEnded = errors.New("the demo server has ended")

// Options describe a server.
type Options struct {
	Name string   // hostname: letters, digits and hyphens
	Hide []string // folders of the machine that the server shall not see, beside /tmp
}

// Server is one running demo server.
type Server struct {
	Name      string
	MachineID string

	cmd   *exec.Cmd
	alive io.Closer     // our end of the pipe
	ended chan struct{} // closed when the init has been waited for
}

// Start makes a server. It needs root.
func Start(ctx context.Context, o Options) (*Server, error) {
	if !validName(o.Name) {
		return nil, fmt.Errorf("%q is no host name", o.Name)
	}
	machineID, err := newMachineID()
	if err != nil {
		return nil, err
	}
	s := &Server{Name: o.Name, MachineID: machineID, ended: make(chan struct{})}
	ready, err := s.start(o)
	if err != nil {
		return nil, fmt.Errorf("start demo server %s: %w", o.Name, err)
	}
	defer ready.Close()
	answer := make(chan string, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(ready, 4096))
		if err != nil {
			text = []byte(err.Error())
		}
		answer <- string(text)
	}()
	timeout := time.NewTimer(readyWithin)
	defer timeout.Stop()
	var problem string
	select {
	case text := <-answer:
		if text == readyWord {
			return s, nil
		}
		problem = text
	case <-ctx.Done():
		problem = ctx.Err().Error()
	case <-timeout.C:
		problem = "it did not get ready in " + readyWithin.String()
	}
	return nil, errors.Join(fmt.Errorf("start demo server %s: %s", o.Name, problem), s.Close())
}

// start runs this program again as the server's init. It returns the reading
// end of the pipe on which the init says that it is ready, or why not.
func (s *Server) start(o Options) (io.ReadCloser, error) {
	life, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer life.Close()
	ready, say, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	defer say.Close()
	s.cmd = exec.Command("/proc/self/exe", append([]string{o.Name, s.MachineID}, o.Hide...)...)
	s.cmd.Args[0] = initName
	s.cmd.Env = []string{"PATH=" + searchPath}
	s.cmd.Dir = "/"
	s.cmd.Stderr = os.Stderr
	s.cmd.ExtraFiles = []*os.File{life, say}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		Setsid:     true, // a Ctrl-C at the terminal is for the one who started us
	}
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, alive.Close(), ready.Close())
	}
	s.alive = alive
	go func() {
		// How an init ends says nothing: it is killed, or leaves, on purpose.
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	return ready, nil
}

// Close ends the server and every process in it, and waits until it is gone.
func (s *Server) Close() error {
	err := s.alive.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	if killErr := s.cmd.Process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
		return errors.Join(err, killErr)
	}
	<-s.ended
	return err
}

// PID is the number of the server's init on the machine.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Command returns a command that runs inside the server as root with a clean
// environment, env in addition. When ctx ends it is killed with its children
// that are in its process group.
func (s *Server) Command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	// Its root is named too: where this machine's root is a chroot, entering the
	// mount namespace alone would end outside of it.
	enter := []string{"--target", strconv.Itoa(s.PID()), "--mount", "--pid", "--uts", "--root", "--wd=/", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = append([]string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a command inside the server and returns its standard output. A
// failure says what the command wrote.
func (s *Server) Run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	if s.Ended() {
		return "", ErrEnded
	}
	cmd := s.Command(ctx, env, name, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s on %s: %w\n%s", name, s.Name, err, strings.TrimSpace(problems.String()+out.String()))
	}
	return out.String(), nil
}

// Ended reports whether the server is gone.
func (s *Server) Ended() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Path returns where the machine sees a file of the server. It is good as long
// as the server runs.
func (s *Server) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(s.PID()), "root", path)
}

// Process is one process as the server itself numbers it.
type Process struct {
	PID     int
	Start   uint64 // clock ticks since boot: with PID it names the process
	Command string
	Threads int
}

// Processes lists the server's processes, the init left out.
func (s *Server) Processes() ([]Process, error) {
	if s.Ended() {
		return nil, ErrEnded
	}
	folders, err := filepath.Glob(s.Path("/proc/[0-9]*"))
	if err != nil {
		return nil, err
	}
	var list []Process
	for _, folder := range folders {
		text, err := os.ReadFile(filepath.Join(folder, "stat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		p, err := parseStat(string(text))
		if err != nil {
			return nil, err
		}
		if p.PID != 1 {
			list = append(list, p)
		}
	}
	return list, nil
}

// parseStat reads the text of /proc/PID/stat.
func parseStat(text string) (Process, error) {
	const threads, start = 17, 19 // fields after the command, counted from 0
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return Process{}, fmt.Errorf("%q is no process status", text)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) <= start {
		return Process{}, fmt.Errorf("%q is no process status", text)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	count, err2 := strconv.Atoi(fields[threads])
	begun, err3 := strconv.ParseUint(fields[start], 10, 64)
	return Process{PID: pid, Start: begun, Command: text[open+1 : end], Threads: count}, errors.Join(err, err2, err3)
}

func validName(name string) bool {
	if name == "" || len(name) > 63 {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == "" && name[0] != '-'
}
