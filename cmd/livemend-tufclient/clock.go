package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// clockPatience bounds how long the time may take to be told.
const clockPatience = 10 * time.Second

// clock asks the program date for the time. Those who test with a faked clock
// give it to programs that use the C library, which this one does not.
func clock(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "date", "+%s").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("asking date for the time, nothing was done: %w", err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("date told %.40q instead of seconds, nothing was done", out)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
