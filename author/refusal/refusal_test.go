package refusal_test

import (
	"errors"
	"fmt"
	"testing"

	"livemend.dev/livemend/author/refusal"
)

func TestAll(t *testing.T) {
	a, b := refusal.New(refusal.Small, "a.o f", "no room"), refusal.New(refusal.Data, "b.o v", "it grew")
	err := fmt.Errorf("no patch: %w", errors.Join(a, fmt.Errorf("also: %w", b), errors.New("something else")))
	all := refusal.All(err)
	if len(all) != 2 || all[0] != a || all[1] != b {
		t.Fatalf("found %v", all)
	}
	if !refusal.Is(err, refusal.Data) || refusal.Is(err, refusal.Import) || refusal.Is(nil, refusal.Data) {
		t.Error("Is tells wrong")
	}
	if refusal.All(errors.New("plain")) != nil {
		t.Error("a refusal out of nothing")
	}
}
