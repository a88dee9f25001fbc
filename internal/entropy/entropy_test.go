package entropy_test

import (
	"bytes"
	"testing"

	"livemend.dev/livemend/internal/entropy"
)

func TestReadFillsEverything(t *testing.T) {
	for _, n := range []int{0, 1, 32, 1000, 1 << 20} {
		a, b := make([]byte, n), make([]byte, n)
		for _, x := range [][]byte{a, b} {
			if err := entropy.Read(x); err != nil {
				t.Fatal(err)
			}
		}
		if n < 32 {
			continue
		}
		if bytes.Equal(a, b) || bytes.Contains(a, make([]byte, 16)) {
			t.Errorf("%d bytes are not random", n)
		}
	}
}
