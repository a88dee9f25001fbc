package orders

import (
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/wire"
)

// place is where a patch can be in force, and what is true of it there: in a
// process, or in the running kernel, whose number is 0.
type place struct {
	wire.ProcessResult
	condition condition
}

// condition is what a place runs.
type condition int

const (
	gone     condition = iota // the place is not there any more
	live                      // the patched code
	old                       // the code without the patch
	reverted                  // the code without the patch, since just now
	stuck                     // nobody knows, or the attempt failed
)

// counts sums places up. One that is gone is in none.
type counts struct {
	live   int64 // run the patched code
	others int64 // do not
	stuck  int64 // of the others: left alone or failed, so nobody knows or it did not work
}

func count(places []place) (n counts) {
	for i := range places {
		switch places[i].condition {
		case live:
			n.live++
		case old, reverted:
			n.others++
		case stuck:
			n.others++
			n.stuck++
		}
	}
	return n
}

// merge adds what a second level found to what the first one did: each place
// once, and what was done to it counts for more than that nothing was left to do.
func merge(places, more []place) []place {
	known := map[[2]int64]int{}
	for i := range places {
		known[[2]int64{places[i].PID, places[i].Start}] = i
	}
	for _, p := range more {
		i, ok := known[[2]int64{p.PID, p.Start}]
		switch {
		case !ok:
			places = append(places, p)
		case places[i].condition != reverted:
			places[i] = p
		}
	}
	return places
}

// reports translates places for the report.
func reports(places []place) []wire.ProcessResult {
	out := make([]wire.ProcessResult, len(places))
	for i := range places {
		out[i] = places[i].ProcessResult
	}
	return out
}

// processes translates what the engine for processes says.
func processes(results []userspace.Result) []place {
	out := make([]place, len(results))
	for i, r := range results {
		p := &out[i]
		p.ProcessResult = wire.ProcessResult{
			PID: int64(r.PID), Start: int64(r.Start), Command: clip(r.Command, wire.MaxID),
			Reason: clip(r.Reason, wire.MaxMessage), Threads: int64(r.Threads), StopNS: r.Stop.Nanoseconds(),
		}
		switch r.Outcome {
		case userspace.Patched, userspace.Already:
			p.condition, p.Outcome = live, wire.Done
		case userspace.Reverted:
			p.condition, p.Outcome = reverted, wire.Done
		case userspace.Unpatched:
			p.condition, p.Outcome = old, wire.Nothing
		case userspace.Skipped:
			p.condition, p.Outcome = stuck, wire.Refused
		case userspace.Failed:
			p.condition, p.Outcome = stuck, wire.Failed
		default:
			p.Outcome = wire.Nothing
		}
		if p.Reason == "" && r.Outcome == userspace.Already {
			p.Reason = "had the patch already"
		}
	}
	return out
}
