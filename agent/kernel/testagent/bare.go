package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bare loads a module as simply as can be and waits for the end of the switch.
func bare(path string, t *Times, start time.Time) (name string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return path, err
	}
	defer f.Close()
	name = strings.TrimSuffix(filepath.Base(path), ".ko")
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return name, err
	}
	for {
		b, err := os.ReadFile("/sys/kernel/livepatch/" + name + "/transition")
		if err != nil {
			return name, err
		}
		if strings.TrimSpace(string(b)) == "0" {
			t.Bare = time.Since(start)
			return name, nil
		}
		time.Sleep(100 * time.Microsecond)
	}
}
