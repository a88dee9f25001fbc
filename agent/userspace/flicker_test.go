package userspace

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// While mappings of a process grow and shrink, the list of them that the kernel
// gives in pieces need not fit together: that is no failure.
func TestMappingsChangeMeanwhile(t *testing.T) {
	path := filepath.Join(filepath.Dir(libPath), "libflicker.so")
	if err := compile(path, "testdata/flicker.c", "-shared", "-fPIC", "-lpthread"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(hostPath)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+path)
	h := startProgram(t, cmd)
	l, err := look(h.pid())
	if err != nil {
		t.Fatal(err)
	}
	start := l.start
	l.close()
	e := New(Options{Children: true, Watch: -1, StopWait: 500 * time.Millisecond, Answer: 20 * time.Second, Patience: 20 * time.Second})
	p := makePatch(t, libPath, 1, all(100))
	tries := 0
	for range 20 {
		for _, step := range []struct {
			what action
			want Outcome
		}{{doApply, Patched}, {doRevert, Reverted}} {
			j := job{engine: e, patch: p, proc: Process{PID: h.pid(), Start: start}}
			r := j.run(t.Context(), step.what)
			if r.Outcome != step.want {
				t.Fatalf("%+v, want %s", r, step.want)
			}
			tries += r.Tries
		}
	}
	t.Logf("%d tries", tries)
}
