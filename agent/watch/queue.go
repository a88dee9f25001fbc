package watch

import "time"

// Bounds of the looks that events lead to.
const (
	maxWaiting = 1024                    // processes that wait for a look
	lookEvery  = 10 * time.Millisecond   // at most one look in this time
	scanEvery  = 10 * time.Second        // at most one scan in this time because of events
	lastPause  = 1200 * time.Millisecond // see pauses
)

// pauses are the times between an event and the first look, and between looks:
// a library is mapped a little after its program started or its file was
// opened.
var pauses = [...]time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 75 * time.Millisecond, 300 * time.Millisecond, lastPause}

// looks is which processes to look at, and when. It is pure: time comes from
// outside.
type looks struct {
	due  map[int]look
	next time.Time // no look before
}

type look struct {
	at   time.Time
	step int // in pauses
}

// add notes an event of a process. One that waits already is not looked at
// sooner, but as often as if the event were its first. It returns false when
// too many wait.
func (q *looks) add(pid int, now time.Time) bool {
	if q.due == nil {
		q.due = map[int]look{}
	}
	old, waits := q.due[pid]
	if !waits && len(q.due) >= maxWaiting {
		return false
	}
	l := look{now.Add(pauses[0]), 0}
	if waits && old.at.Before(l.at) {
		l.at = old.at
	}
	q.due[pid] = l
	return true
}

// drop forgets a process that ended.
func (q *looks) drop(pid int) { delete(q.due, pid) }

// take returns a process whose turn it is, and plans its next look.
func (q *looks) take(now time.Time) (pid int, ok bool) {
	if now.Before(q.next) {
		return 0, false
	}
	best := look{}
	for p, l := range q.due {
		if !l.at.After(now) && (!ok || l.at.Before(best.at)) {
			pid, best, ok = p, l, true
		}
	}
	if !ok {
		return 0, false
	}
	q.next = now.Add(lookEvery)
	if best.step+1 < len(pauses) {
		q.due[pid] = look{now.Add(pauses[best.step+1]), best.step + 1}
	} else {
		delete(q.due, pid)
	}
	return pid, true
}

// retry plans the look that take gave again: it could not be made.
func (q *looks) retry(pid int, now time.Time) {
	step := len(pauses) - 1
	if l, ok := q.due[pid]; ok {
		step = l.step - 1
	}
	q.due[pid] = look{now.Add(lookEvery), step}
}

// wait returns how long until the next look is due; false when none is.
func (q *looks) wait(now time.Time) (time.Duration, bool) {
	var first time.Time
	for _, l := range q.due {
		if first.IsZero() || l.at.Before(first) {
			first = l.at
		}
	}
	if first.IsZero() {
		return 0, false
	}
	if first.Before(q.next) {
		first = q.next
	}
	return max(first.Sub(now), 0), true
}
