package kernel

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits on looking for the tasks that hold a switch up.
const (
	maxProcesses = 1 << 20
	maxThreads   = 1 << 15
	maxTasks     = 16      // that are named
	maxStack     = 2 << 10 // bytes of a task's stack that are kept
)

// Task is a thread that holds a switch up: it sleeps in a function that is
// replaced, or was never seen outside of one.
type Task struct {
	PID     int // process
	TID     int // thread
	Command string
	State   byte   // as ps shows it: S sleeps and can be woken, D sleeps and cannot
	Stack   string // in the kernel, innermost function first
}

// String names the task for people.
func (t Task) String() string {
	text := "task " + strconv.Itoa(t.TID) + " (" + strconv.QuoteToASCII(t.Command) + ", state " + string(rune(t.State)) + ")"
	if t.Stack != "" {
		text += " is in " + strings.Join(strings.Fields(t.Stack), " ")
	}
	return text
}

// The numbers that enabled and /proc/PID/patch_state use.
const (
	oldCode = 0
	newCode = 1
)

// phase is how far the switch of a loaded patch is.
type phase struct {
	there     bool // it has its folder; it goes a moment after the patch was disabled
	enabled   bool
	switching bool
}

func patchDir(name string) string { return "/sys/kernel/livepatch/" + name + "/" }

func readPhase(name string) (phase, error) {
	enabled, err := fact("/", patchDir(name)+"enabled")
	if err == nil {
		var switching string
		if switching, err = fact("/", patchDir(name)+"transition"); err == nil {
			return phase{true, strings.TrimSpace(enabled) == "1", strings.TrimSpace(switching) == "1"}, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return phase{}, nil
	}
	return phase{}, &Error{Kind: ErrUnreachable, Detail: err.Error()}
}

// set writes 0 or 1 to a file of a patch. That the patch is gone is no error.
func set(name, file, value string) error {
	f, err := os.OpenFile(patchDir(name)+file, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// settle waits until the switch of a patch is over, at most until the time
// given. Nobody tells when it is, so it is asked: soon at first, since most
// switches are over when the module is loaded.
func settle(ctx context.Context, name string, until time.Time) (p phase, over bool, err error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		p, err = readPhase(name)
		// A disabled patch keeps its folder for a moment; it is over without it.
		if err != nil || !p.there || p.enabled && !p.switching {
			return p, true, err
		}
		wait := min(pause, time.Until(until))
		if wait <= 0 {
			return p, false, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return p, false, ctx.Err()
		}
	}
}

// stalled returns threads that are not where the switch goes, at most maxTasks.
func stalled(goal int) []Task {
	var found []Task
	for _, pid := range numbers("/proc", maxProcesses) {
		tasks := "/proc/" + strconv.Itoa(pid) + "/task"
		// Threads that ended meanwhile cannot be read and do not matter.
		for _, tid := range numbers(tasks, maxThreads) {
			dir := tasks + "/" + strconv.Itoa(tid) + "/"
			text, err := fact("/", dir+"patch_state")
			state, bad := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || bad != nil || state == goal || state < 0 {
				continue
			}
			stat, err := fact("/", dir+"stat")
			if err != nil {
				continue
			}
			t := Task{PID: pid, TID: tid}
			t.Command, t.State, _ = parseStat(stat)
			stack, _ := fact("/", dir+"stack") // for people, if it can be had
			t.Stack = functions(stack)
			if found = append(found, t); len(found) == maxTasks {
				return found
			}
		}
	}
	return found
}

// numbers returns the names in dir that are numbers.
func numbers(dir string, limit int) []int {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close() // only read
	names, _ := d.Readdirnames(limit)
	var list []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// flagKernelThread marks a thread of the kernel in /proc/PID/stat (PF_KTHREAD).
const flagKernelThread = 0x00200000

// parseStat reads the thread's name, its state, and whether it is the kernel's
// own. The name may hold anything, so it ends at the last parenthesis.
func parseStat(stat string) (command string, state byte, kernel bool) {
	open, shut := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || shut < open {
		return "", '?', false
	}
	rest := strings.Fields(stat[shut+1:])
	if len(rest) < 7 {
		return stat[open+1 : shut], '?', false
	}
	flags, _ := strconv.ParseUint(rest[6], 10, 64)
	return stat[open+1 : shut], rest[0][0], flags&flagKernelThread != 0
}

// functions takes the addresses out of a stack that /proc shows:
//
//	[<0>] msleep+0x2d/0x40
func functions(stack string) string {
	var b strings.Builder
	for line := range strings.Lines(stack) {
		_, name, found := strings.Cut(strings.TrimSpace(line), "] ")
		if !found {
			continue
		}
		name, _, _ = strings.Cut(name, "/")
		if b.Len()+len(name) > maxStack {
			break
		}
		b.WriteString(name + " ")
	}
	return strings.TrimSuffix(b.String(), " ")
}

// nudge stops and continues processes whose stalled threads sleep and can be
// woken: on their way out of the kernel they take the new code. Programs that
// watch over their children may notice. It returns how many there were.
func nudge(tasks []Task) (count int) {
	for _, t := range tasks {
		if t.State != 'S' || t.PID == os.Getpid() {
			continue
		}
		stat, err := fact("/", "/proc/"+strconv.Itoa(t.PID)+"/stat")
		if _, _, kernel := parseStat(stat); err != nil || kernel {
			continue
		}
		if unix.Kill(t.PID, unix.SIGSTOP) == nil {
			_ = unix.Kill(t.PID, unix.SIGCONT) // it ended meanwhile: fine
			count++
		}
	}
	return count
}
