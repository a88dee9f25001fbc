package scan

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestTooManyBytesAreAnErrorNotAnEnd(t *testing.T) {
	got, err := io.ReadAll(&capped{r: strings.NewReader("abcdef"), left: 4})
	if string(got) != "abcd" || !errors.Is(err, ErrLimit) {
		t.Errorf("read %q, %v; want 4 bytes and ErrLimit", got, err)
	}
	w := newWalker(&capped{r: strings.NewReader("<a>" + strings.Repeat(" ", 100) + "</a>"), left: 50})
	if _, err := w.root(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.text(); !errors.Is(err, ErrLimit) {
		t.Errorf("reading on: %v, want ErrLimit", err)
	}
}
