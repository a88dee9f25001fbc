package kernel

import (
	"bytes"
	"testing"
)

// Whatever a diff says, the files that it names lie below the source.
func FuzzTouched(f *testing.F) {
	f.Add([]byte(diffOf("a/kernel/a.c", "b/kernel/a.c")))
	f.Add([]byte(diffOf("a/../x.c", "b/../x.c", "/dev/null", "b/new.h")))
	f.Fuzz(func(t *testing.T, diff []byte) {
		sources, headers, err := touched(diff)
		if err != nil {
			return
		}
		for _, name := range append(sources, headers...) {
			if name == "" || name[0] == '/' || bytes.Contains([]byte("/"+name+"/"), []byte("/../")) {
				t.Errorf("file %q", name)
			}
		}
	})
}
