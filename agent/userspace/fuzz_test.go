package userspace

import (
	"crypto/sha256"
	"testing"

	"livemend.dev/livemend/patch/image"
)

// FuzzPlanSites takes whatever a target claims to have been patched with: every
// place that follows from a claim lies in a function, and its jump in the image.
func FuzzPlanSites(f *testing.F) {
	b := sampleCarrier().encode()
	f.Add(b[stateBodyAt:])
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 1<<20 {
			return
		}
		c, ok := decodeState(sealed(body), sampleCarrier().begin())
		if !ok {
			return
		}
		free := uint64(0)
		for i := range c.hunks {
			h := &c.hunks[i]
			at, _, reaches := c.site(h)
			if from := c.bias + h.Off; at < from || at+image.JumpSize > from+uint64(h.Size) || from < free {
				t.Fatalf("the site %#x lies outside of its function at %#x", at, from)
			}
			free = c.bias + h.Off + uint64(h.Size)
			if to := c.image + uint64(h.New); reaches && to >= c.begin()+c.size() {
				t.Fatalf("the jump leads to %#x, behind the image", to)
			}
		}
		if c.begin() >= c.image || len(c.code()) > image.MaxSegments {
			t.Fatalf("%+v", c)
		}
	})
}

// sealed puts a head and the right sum in front of a state area's body, which
// otherwise would not be looked at.
func sealed(body []byte) []byte {
	b := make([]byte, stateBodyAt, stateBodyAt+len(body))
	copy(b, stateMagic)
	b = append(b, body...)
	sum := sha256.Sum256(body)
	copy(b[stateSumAt:], sum[:])
	return b
}
