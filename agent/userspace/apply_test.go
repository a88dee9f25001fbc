package userspace

import (
	"testing"
)

func TestOneFunction(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, map[string][]byte{"f1": add(100)})
	h.want("f1 5", "6")
	h.do(e.Status, p, Unpatched)
	r := h.do(e.Apply, p, Patched)
	t.Logf("stop %v, %d thread; mapping %v", r.Stop, r.Threads, r.Map)
	h.want("f1 5", "105")
	h.want("f2 5", "7")
	h.do(e.Status, p, Patched)
	h.do(e.Apply, p, Already)
	r = h.do(e.Revert, p, Reverted)
	t.Logf("undo: stop %v", r.Stop)
	h.want("f1 5", "6")
	h.do(e.Revert, p, Unpatched)
	h.do(e.Status, p, Unpatched)
}
