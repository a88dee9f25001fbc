package main

import (
	"sync"
	"time"
)

// watch calls give up when a window of time passes with fewer bytes written to
// it than are enough. Safe for concurrent use.
type watch struct {
	mu      sync.Mutex
	n       int // bytes in this window
	window  time.Duration
	timer   *time.Timer
	stopped bool
}

func newWatch(window time.Duration, giveUp func()) *watch {
	w := &watch{window: window}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(window, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.stopped {
			return
		}
		if w.n < enough {
			giveUp()
			return
		}
		w.n = 0
		w.timer.Reset(w.window)
	})
	return w
}

// Write implements io.Writer: it counts.
func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += len(p)
	return len(p), nil
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
