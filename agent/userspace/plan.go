package userspace

import (
	"crypto/sha256"
	"slices"
	"strconv"

	"livemend.dev/livemend/patch/image"
)

// span is a range of code addresses in which no thread may be when a plan is
// carried out.
type span struct{ from, to uint64 }

// write replaces one jump-sized piece of code.
type write struct {
	at       uint64
	old, new jump
	name     string // of the function, for people
}

// plan is what has to happen in one process. Everything that can be found out
// before the stop is in it.
type plan struct {
	outcome Outcome // when not empty, nothing has to happen
	reason  string

	carrier *carrier // of the image to switch to; nil for a revert
	image   []byte   // bytes to put at carrier.image; nil when they are there already
	writes  []write  // in ascending order, disjoint
	spans   []span   // in ascending order
}

// present is what is switched on in a target.
type present struct {
	all    []*carrier
	active *carrier // nil when nothing is on
}

// refusal is why one process must be left as it is.
type refusal struct{ reason string }

func (e *refusal) Error() string { return e.reason }

// look finds out which of the images in the target is switched on.
func (t *target) look(p *Patch) (present, error) {
	all, err := t.carriers(p.File.BuildID)
	if err != nil {
		return present{}, err
	}
	pr := present{all: all}
	for _, c := range all {
		n := 0
		for i := range c.hunks {
			at, want, ok := c.site(&c.hunks[i])
			if !ok || !t.isCode(at, image.JumpSize) {
				n = 0
				break // not ours: we never make one that does not reach
			}
			got, err := t.siteBytes(at)
			if err != nil {
				return present{}, err
			}
			if got == want {
				n++
			}
		}
		switch {
		case n == 0:
		case n < len(c.hunks):
			return present{}, &refusal{"only " + strconv.Itoa(n) + " of the " + strconv.Itoa(len(c.hunks)) +
				" functions of level " + strconv.FormatInt(c.level, 10) + " are redirected: something else changed its code; restart it"}
		case pr.active != nil:
			return present{}, &refusal{"two patches of the library are on at the same time; restart it"}
		default:
			pr.active = c
		}
	}
	return pr, nil
}

// planStatus says what is true without wanting to change it.
func (t *target) planStatus(p *Patch) (*plan, error) {
	pr, err := t.look(p)
	if err != nil {
		return nil, err
	}
	c := pr.active
	switch {
	case c == nil:
		return &plan{outcome: Unpatched}, nil
	case c.is(p):
		if ok, err := t.stillHolds(c, p); err != nil || !ok {
			return nil, changed(err)
		}
		return &plan{outcome: Patched}, nil
	case c.level > p.Level:
		return &plan{outcome: Already, reason: "level " + strconv.FormatInt(c.level, 10) + ", which is newer, is on"}, nil
	}
	return &plan{outcome: Unpatched, reason: "level " + strconv.FormatInt(c.level, 10) + " of the library's patches is on"}, nil
}

// changed is the refusal for an image that is not what it was.
func changed(err error) error {
	if err != nil {
		return err
	}
	return &refusal{"the patch's image in its memory is not what the agent put there; restart it"}
}

// planApply works out how p gets on, whatever is on now.
func (t *target) planApply(p *Patch) (*plan, error) {
	pr, err := t.look(p)
	if err != nil {
		return nil, err
	}
	active := pr.active
	if active != nil && (active.is(p) || active.level > p.Level) {
		pl, err := t.planStatus(p)
		if err == nil {
			pl.outcome = Already
		}
		return pl, err
	}
	imports, err := t.imports(p.File)
	if err != nil {
		return nil, err
	}
	pl := &plan{}
	// An image of the same patch that was reverted, or that an agent which died
	// in the middle left behind, is used again.
	for _, c := range pr.all {
		ok, err := t.holds(c, p, imports)
		if err != nil {
			return nil, err
		}
		if ok {
			pl.carrier = c
			break
		}
	}
	if pl.carrier == nil {
		if err := t.placeImage(p, pl, imports); err != nil {
			return nil, err
		}
	}
	if err := t.planHunks(p, pl, active); err != nil {
		return nil, err
	}
	return pl, pl.finish()
}

// placeImage chooses where the image goes and computes its bytes.
func (t *target) placeImage(p *Patch, pl *plan, imports []uint64) error {
	low, high := t.span()
	c := newCarrier(p, 0, t.bias)
	state := stateSize(len(c.hunks))
	at, ok := hole(t.maps, low, high, state+uint64(p.File.Size()))
	if !ok {
		return &refusal{"it has no free memory near the library"}
	}
	c.image = at + state
	placed, err := p.File.Place(c.image, t.bias, imports...)
	if err != nil {
		return &refusal{err.Error()}
	}
	pl.carrier, pl.image = c, placed
	return nil
}

// planHunks fills in writes and spans: p's functions lead into its image, and
// functions that only the active patch redirects get their own code back.
func (t *target) planHunks(p *Patch, pl *plan, active *carrier) error {
	now := make(map[uint64]write) // what the active patch has put where
	if active != nil {
		pl.spans = append(pl.spans, active.code()...)
		for i := range active.hunks {
			h := &active.hunks[i]
			at, j, _ := active.site(h) // reaches: look compared it with the code
			now[at] = write{at: at, old: j, new: original(h), name: "?"}
		}
	}
	for i := range p.File.Hunks {
		h := &p.File.Hunks[i]
		entry := t.bias + h.Off
		at, j, ok := pl.carrier.site(&pl.carrier.hunks[i])
		if !ok {
			return &refusal{"the function " + h.Name + " is more than 2 GiB from the image"}
		}
		if !t.isCode(entry, uint64(h.Size)) {
			return &refusal{"the function " + h.Name + " does not lie in the library's code"}
		}
		w := write{at: at, old: original(h), new: j, name: h.Name}
		if on, ok := now[at]; ok {
			w.old = on.old
			delete(now, at)
		}
		if err := t.checkOld(h, w); err != nil {
			return err
		}
		pl.writes = append(pl.writes, w)
		pl.spans = append(pl.spans, span{entry + 1, entry + uint64(h.Size)})
	}
	for _, w := range now {
		pl.writes = append(pl.writes, w)
	}
	return nil
}

// checkOld compares a whole old function with what the patch was built for. The
// bytes of a jump that an older level put there count as what they replaced.
func (t *target) checkOld(h *image.Hunk, w write) error {
	code := make([]byte, h.Size)
	if _, err := t.h.ReadAt(code, int64(t.bias+h.Off)); err != nil {
		return err
	}
	field := code[h.JumpOff() : h.JumpOff()+image.JumpSize]
	if jump(field) != w.old {
		return &refusal{"the first bytes of the function " + h.Name + " are not those that the patch was built for"}
	}
	old := original(h)
	copy(field, old[:])
	if sha256.Sum256(code) != h.OldHash {
		return &refusal{"the code of the function " + h.Name + " is not the code that the patch was built for"}
	}
	return nil
}

// planRevert works out how p gets off.
func (t *target) planRevert(p *Patch) (*plan, error) {
	pr, err := t.look(p)
	if err != nil {
		return nil, err
	}
	c := pr.active
	switch {
	case c == nil:
		return &plan{outcome: Unpatched, reason: "the patch was not on"}, nil
	case !c.is(p):
		return nil, &refusal{"level " + strconv.FormatInt(c.level, 10) + " of the library's patches is on, not level " + strconv.FormatInt(p.Level, 10)}
	}
	// The claim of the state area gives way to the patch itself.
	if ok, err := t.stillHolds(c, p); err != nil || !ok {
		return nil, changed(err)
	}
	pl := &plan{spans: c.codeOf(p)}
	for i := range p.File.Hunks {
		h := &p.File.Hunks[i]
		at, j, ok := c.site(h)
		if !ok {
			return nil, changed(nil)
		}
		pl.writes = append(pl.writes, write{at: at, old: j, new: original(h), name: h.Name})
	}
	return pl, pl.finish()
}

// finish puts writes and spans in order.
func (pl *plan) finish() error {
	slices.SortFunc(pl.writes, func(a, b write) int { return cmpUp(a.at, b.at) })
	for i := 1; i < len(pl.writes); i++ {
		if pl.writes[i].at-pl.writes[i-1].at < image.JumpSize {
			return &refusal{"the patch that is on and the new one do not fit together; restart it"}
		}
	}
	slices.SortFunc(pl.spans, func(a, b span) int { return cmpUp(a.from, b.from) })
	return nil
}

func cmpUp(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
