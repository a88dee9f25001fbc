package author

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"livemend.dev/livemend/author/layout"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/ownership"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch"
)

// Waiver is the word of a person that one refusal does not apply: that no
// object in the old form outlives a call, for example. It lifts the refusal of
// its very kind and place and nothing else, and the patch carries it.
type Waiver struct {
	Kind   refusal.Kind
	Place  string
	Person string
	Reason string
}

// ErrWaiver is wrapped when a waiver is not well formed or lifts nothing.
var ErrWaiver = errors.New("the waiver is not good")

// ParseWaiver reads KIND:PLACE=PERSON: REASON.
func ParseWaiver(text string) (Waiver, error) {
	bad := func(why string) (Waiver, error) {
		return Waiver{}, fmt.Errorf("%w: %q: %s; write KIND:PLACE=PERSON: REASON", ErrWaiver, text, why)
	}
	kind, rest, _ := strings.Cut(text, ":")
	place, word, _ := strings.Cut(rest, "=")
	person, reason, _ := strings.Cut(word, ":")
	w := Waiver{
		Kind: refusal.Kind(strings.TrimSpace(kind)), Place: strings.TrimSpace(place),
		Person: strings.TrimSpace(person), Reason: strings.TrimSpace(reason),
	}
	switch {
	case !CanWaive(w.Kind):
		return bad("refusals of kind " + string(w.Kind) + " cannot be waived, only layout and ownership")
	case w.Place == "":
		return bad("the place is missing")
	case w.Person == "" || w.Reason == "":
		return bad("the person or the reason is missing")
	case len(text) > patch.MaxText/2, strings.ContainsFunc(text, unicode.IsControl):
		return bad("it is too long or has control characters")
	}
	return w, nil
}

// CanWaive reports whether a person's word can lift refusals of the kind. What
// the tools know to be wrong, nobody can make right by saying so.
func CanWaive(kind refusal.Kind) bool {
	return kind == refusal.Layout || kind == refusal.Ownership
}

func (w Waiver) String() string {
	return fmt.Sprintf("%s: %s, waived by %s: %s", w.Kind, w.Place, w.Person, w.Reason)
}

// Review returns what stands against a patch of the given pairs and no waiver
// lifts, or what is wrong with the waivers.
func Review(part []*objdiff.Pair, waivers []Waiver) []error {
	d := &desk{waivers: waivers}
	var all []error
	for _, r := range d.review(part) {
		all = append(all, r)
	}
	if err := d.unused(); len(all) == 0 && err != nil {
		all = append(all, err)
	}
	return all
}

// desk is where what only a person can decide is decided.
type desk struct {
	waivers []Waiver
	used    map[int]bool
}

// review returns what stands against a patch of the given pairs and is not
// waived.
func (d *desk) review(part []*objdiff.Pair) []*refusal.Error {
	d.used = map[int]bool{}
	var out []*refusal.Error
	for _, r := range slices.Concat(layout.Check(part), ownership.Check(part)) {
		if !d.waive(r) {
			out = append(out, r)
		}
	}
	return out
}

func (d *desk) waive(r *refusal.Error) bool {
	for i, w := range d.waivers {
		if w.Kind == r.Kind && w.Place == r.Place && CanWaive(w.Kind) && !d.used[i] {
			d.used[i] = true
			return true
		}
	}
	return false
}

// unused refuses waivers that lifted nothing: they speak of another change than
// this one.
func (d *desk) unused() error {
	var all []error
	for i, w := range d.waivers {
		if !d.used[i] {
			all = append(all, fmt.Errorf("%w: nothing is refused as %s:%s, so it was given for another change; nothing was built", ErrWaiver, w.Kind, w.Place))
		}
	}
	return errors.Join(all...)
}
