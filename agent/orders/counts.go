package orders

import (
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/wire"
)

// counts sums up what the engine says of processes. One that ended is in none.
type counts struct {
	live   int64 // run the patched code
	others int64 // do not
	stuck  int64 // of the others: left alone or failed, so nobody knows or it did not work
}

func count(results []userspace.Result) (n counts) {
	for _, r := range results {
		switch r.Outcome {
		case userspace.Patched, userspace.Already:
			n.live++
		case userspace.Reverted, userspace.Unpatched:
			n.others++
		case userspace.Skipped, userspace.Failed:
			n.others++
			n.stuck++
		}
	}
	return n
}

// merge adds what a second level found to what the first one did: each process
// once, and what was done to it counts for more than that nothing was left to do.
func merge(results, more []userspace.Result) []userspace.Result {
	known := map[[2]uint64]int{}
	for i, r := range results {
		known[[2]uint64{uint64(r.PID), r.Start}] = i
	}
	for _, r := range more {
		i, ok := known[[2]uint64{uint64(r.PID), r.Start}]
		switch {
		case !ok:
			results = append(results, r)
		case results[i].Outcome != userspace.Reverted:
			results[i] = r
		}
	}
	return results
}

// processes translates the engine's results for the report.
func processes(results []userspace.Result) []wire.ProcessResult {
	out := make([]wire.ProcessResult, 0, len(results))
	for _, r := range results {
		p := wire.ProcessResult{
			PID: int64(r.PID), Start: int64(r.Start), Command: clip(r.Command, wire.MaxID),
			Reason: clip(r.Reason, wire.MaxMessage), Threads: int64(r.Threads), StopNS: r.Stop.Nanoseconds(),
		}
		switch r.Outcome {
		case userspace.Patched, userspace.Already, userspace.Reverted:
			p.Outcome = wire.Done
		case userspace.Skipped:
			p.Outcome = wire.Refused
		case userspace.Failed:
			p.Outcome = wire.Failed
		default:
			p.Outcome = wire.Nothing
		}
		if p.Reason == "" && r.Outcome == userspace.Already {
			p.Reason = "had the patch already"
		}
		out = append(out, p)
	}
	return out
}
