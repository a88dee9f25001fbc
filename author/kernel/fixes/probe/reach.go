package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// triggers make the kernel run something.
var triggers = map[string]func() error{
	"exec":    execWithThreads,
	"extents": manyExtents,
}

// replaced makes this program, which has several threads, start itself anew.
const replaced = "replaced"

func execWithThreads() error { return exec.Command("/proc/self/exe", replaced).Run() }

// manyExtents makes a file whose parts are many, and come from its end to its
// start, so that the file system has to correct its index each time.
func manyExtents() error {
	f, err := os.OpenFile("/disk/extents", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	const parts, step = 1500, 4 * 4096
	for i := parts; i > 0; i-- {
		if _, err := f.WriteAt([]byte{1}, int64(i*step)); err != nil {
			return err
		}
		if i%50 == 0 {
			if err := f.Sync(); err != nil { // blocks are given out here
				return err
			}
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Remove("/disk/extents")
}

// reach MODULE FUNCTION TRIGGER reports how often the trigger runs a function of a
// module, as the kernel's tracer sees it.
func reach(args []string) error {
	if len(args) != 3 || triggers[args[2]] == nil {
		return fmt.Errorf("reach MODULE FUNCTION TRIGGER")
	}
	const tracing = "/sys/kernel/tracing"
	if _, err := os.Stat(filepath.Join(tracing, "trace")); err != nil {
		if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mounting the tracer: %w", err)
		}
	}
	set := func(file, text string) error {
		return os.WriteFile(filepath.Join(tracing, file), []byte(text), 0)
	}
	if err := set("set_ftrace_filter", "*:mod:"+args[0]); err != nil {
		return err
	}
	if err := set("current_tracer", "function"); err != nil {
		return err
	}
	if err := triggers[args[2]](); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(tracing, "trace"))
	if err != nil {
		return err
	}
	if err := set("current_tracer", "nop"); err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") && strings.Contains(line, " "+args[1]+" ") {
			n++
		}
	}
	if n == 0 {
		return fmt.Errorf("%s of %s did not run: %.2000s", args[1], args[0], text)
	}
	fmt.Printf("%s of %s ran %d times\n", args[1], args[0], n)
	return nil
}
