// Package show runs a demonstration: a list of steps, each of which does
// something and returns the evidence that it checked. It prints them as they
// happen and counts those of the whitepaper.
//
// It knows nothing of what the steps do. A step counts only when its evidence
// held; nothing is shown after a step that failed.
package show

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Step is one thing to show.
type Step struct {
	// Paper is the step's number in the whitepaper ("part 1, 1.2", "arrow 7");
	// empty for a step that is not of the paper.
	Paper string
	Title string
	// Do does it and returns what was checked, in one or more lines. An error
	// says what did not hold.
	Do func(ctx context.Context) (evidence string, err error)
}

// patience is how long a step works silently.
const patience = time.Second

// Run shows steps on out and returns the first failure. Its last line is
// "whitepaper: N of M steps shown".
func Run(ctx context.Context, out io.Writer, steps []Step) error {
	s := &screen{out: out}
	total, shown := 0, 0
	for _, step := range steps {
		if step.Paper != "" {
			total++
		}
	}
	var failed error
	for _, step := range steps {
		begun := time.Now()
		stop := s.progress(step.Title)
		evidence, err := step.Do(ctx)
		stop()
		if err == nil && strings.TrimSpace(evidence) == "" {
			err = errors.New("the step checked nothing")
		}
		if err != nil {
			failed = fmt.Errorf("%s: %w", step.name(), err)
			s.block("FAILED  "+step.name(), err.Error())
			break
		}
		if step.Paper != "" {
			shown++
		}
		s.block(fmt.Sprintf("%s  (%.1f s)", step.name(), time.Since(begun).Seconds()), evidence)
	}
	s.line(fmt.Sprintf("whitepaper: %d of %d steps shown", shown, total))
	return errors.Join(failed, s.err)
}

func (s Step) name() string {
	if s.Paper == "" {
		return s.Title
	}
	return "[" + s.Paper + "] " + s.Title
}

// screen serialises what is written and keeps the first error.
type screen struct {
	mu  sync.Mutex
	out io.Writer
	err error
}

func (s *screen) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := io.WriteString(s.out, text+"\n"); err != nil && s.err == nil {
		s.err = err
	}
}

func (s *screen) block(title, text string) {
	s.line(title + "\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "))
}

// progress says each second that a step is still at work, until stop is called.
func (s *screen) progress(title string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	begun := time.Now()
	done.Go(func() {
		tick := time.NewTicker(patience)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.line(fmt.Sprintf("  ... %s: %.0f s", title, time.Since(begun).Seconds()))
			}
		}
	})
	return func() { cancel(); done.Wait() }
}
