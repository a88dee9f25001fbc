// Package scanner starts a vulnerability scanner that is installed on this
// server, as a user without rights and within limits, and returns its report.
//
// It starts known programs at known places with fixed arguments; nothing that
// comes over the network becomes part of a command. Whether a scanner may be
// started, and whether its content may be believed, is decided before. It must
// not understand the report.
package scanner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// OpenSCAP is the one scanner so far; it evaluates OVAL definitions.
const OpenSCAP = "openscap"

// Limits on one run.
const (
	MaxTime    = 5 * time.Minute
	maxCPU     = 240      // seconds
	maxMemory  = 2 << 30  // bytes of address space
	maxResult  = 64 << 20 // bytes of any file that the scanner writes
	maxMessage = 1000     // bytes of its own words that are kept
	nobody     = 65534    // user and group without rights
)

// Errors of this package; each says that nothing was changed by its nature: a
// scanner only reads.
var (
	ErrUnknown = errors.New("this agent does not know the scanner")
	ErrAbsent  = errors.New("the scanner is not installed on this server: install the package openscap-scanner and scan again")
	ErrTime    = errors.New("the scanner did not finish in time and was ended")
	ErrResult  = errors.New("the scanner left no usable report")
	ErrBlind   = errors.New("the scanner could not look at everything, so what it did not find says nothing: correct the cause and scan again")
)

// Runner starts scanners, one at a time.
type Runner struct {
	Dir     string // for temporary files; made when missing
	Program string // of OpenSCAP; empty for where distributions install it
}

// Run evaluates OVAL definitions with the scanner called name and returns its
// report, compressed with gzip. ctx ends it early.
func (r Runner) Run(ctx context.Context, name string, oval []byte) (report []byte, err error) {
	if name != OpenSCAP {
		return nil, ErrUnknown
	}
	program := r.Program
	if program == "" {
		program = "/usr/bin/oscap"
	}
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := removeLeft(r.Dir); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.Dir, prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	content, words := filepath.Join(dir, "content.xml"), filepath.Join(dir, "words")
	// The scanner may write below out and nowhere else; what it reads is not its.
	out := filepath.Join(dir, "out")
	result := filepath.Join(out, "result.xml")
	if err := errors.Join(os.WriteFile(content, oval, 0o644), os.Mkdir(out, 0o700), os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	var credential *syscall.Credential // not root: there are no rights to give up
	if os.Geteuid() == 0 {
		credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(out, nobody, nobody); err != nil {
			return nil, err
		}
	}
	if err := run(ctx, out, words, credential, program, "oval", "eval", "--results", result, content); err != nil {
		return nil, errors.Join(err, said(words))
	}
	// OpenSCAP ends well, and finds nothing, when it could not look: at packages,
	// say. Its report does not tell that from a server without a flaw.
	if complaint := said(words); complaint != nil && strings.Contains(complaint.Error(), "E: oscap: ") {
		return nil, errors.Join(ErrBlind, complaint)
	}
	return compress(result)
}

// prefix starts the name of the folder of one run.
const prefix = "scan-"

// removeLeft removes the folders of runs that the agent did not survive: they
// take up memory where Dir lies.
func removeLeft(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	err = errors.Join(err, d.Close())
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return err
}

// shell sets the scanner's limits from inside, after its rights are gone: from
// outside that takes a right which an agent in a container may lack. Seconds,
// KiB of address space, and 512-byte blocks of maxResult; then the program,
// whose arguments the shell passes on without looking at them.
const shell = `ulimit -c 0 && ulimit -t 240 && ulimit -v 2097152 && ulimit -f 131072 && exec "$@"`

// run starts the program with an empty environment and waits for its end.
func run(ctx context.Context, dir, words string, as *syscall.Credential, program string, args ...string) error {
	ctx, stop := context.WithTimeout(ctx, MaxTime)
	defer stop()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close() // nothing is written that could be lost
	log, err := os.OpenFile(words, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // only read for people, if it is there
	// Pdeathsig means the death of this thread, so it stays until the end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/bin/sh", append([]string{"sh", "-c", shell, "sh", program}, args...), &os.ProcAttr{
		Dir:   dir,
		Env:   []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=" + dir, "TMPDIR=" + dir},
		Files: []*os.File{null, null, log},
		Sys:   &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	// The process leads a group of its own, so this ends its children too.
	end := context.AfterFunc(ctx, func() { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }) // gone already: fine
	status, err := p.Wait()
	inTime := end()
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // what it may have left behind; usually nothing
	switch {
	case err != nil:
		return err
	case !inTime && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ErrTime
	case !inTime:
		return ctx.Err()
	case !status.Success():
		return errors.New("the scanner ended with " + status.String())
	}
	return nil
}

// compress returns the report packed. The folder belonged to the scanner, so
// the file may be anything.
func compress(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(ErrResult, err)
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxResult {
		return nil, ErrResult
	}
	b, err := io.ReadAll(io.LimitReader(f, maxResult))
	if err != nil {
		return nil, err
	}
	return pack(b), nil
}

// said returns the end of what the scanner wrote for people, as an error.
func said(path string) error {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return nil
	}
	if len(b) > maxMessage {
		b = b[len(b)-maxMessage:]
	}
	return errors.New("it said: " + strconv.QuoteToASCII(string(bytes.TrimSpace(b))))
}
