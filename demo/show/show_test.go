package show

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func step(paper, title, evidence string, err error) Step {
	return Step{Paper: paper, Title: title, Do: func(context.Context) (string, error) { return evidence, err }}
}

func TestRunCountsWhatHeld(t *testing.T) {
	var out strings.Builder
	err := Run(t.Context(), &out, []Step{
		step("", "ground", "there", nil), step("part 1", "one", "seen\ntwice", nil), step("arrow 1", "two", "seen", nil),
	})
	if err != nil || !strings.HasSuffix(out.String(), "\nwhitepaper: 2 of 2 steps shown\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "\n    seen\n    twice\n") {
		t.Errorf("the evidence is not shown:\n%s", out.String())
	}
}

func TestRunStopsAtAFailure(t *testing.T) {
	broken := errors.New("it leaks")
	for name, steps := range map[string][]Step{
		"of the paper":     {step("part 1", "one", "seen", nil), step("part 2", "two", "seen", broken), step("part 3", "three", "seen", nil)},
		"not of the paper": {step("part 1", "one", "seen", nil), step("", "two", "", broken), step("part 2", "t", "seen", nil), step("part 3", "t", "seen", nil)},
	} {
		var out strings.Builder
		if err := Run(t.Context(), &out, steps); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasSuffix(out.String(), "\nwhitepaper: 1 of 3 steps shown\n") || !strings.Contains(out.String(), "it leaks") {
			t.Errorf("%s:\n%s", name, out.String())
		}
	}
}

func TestNoEvidenceIsAFailure(t *testing.T) {
	var out strings.Builder
	if err := Run(t.Context(), &out, []Step{step("part 1", "one", " \n", nil)}); err == nil {
		t.Errorf("a step that checked nothing was shown:\n%s", out.String())
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		slow := Step{Title: "slow", Do: func(context.Context) (string, error) {
			time.Sleep(2500 * time.Millisecond) // of the test's own clock
			return "done", nil
		}}
		if err := Run(t.Context(), &out, []Step{slow}); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), "... slow") != 2 {
			t.Errorf("progress:\n%s", out.String())
		}
	})
}
