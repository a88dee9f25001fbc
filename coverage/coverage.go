// Package coverage says what is true of a vulnerability on a server, with
// evidence: for each vulnerability and each place where it can be (running
// kernel, library in memory, package on disk) one state, the live patch that
// would fix it and the ordinary package update that would.
//
// It is pure: no I/O, no clock. It never guesses an "effective version": a
// place in memory is identified by build-id only.
package coverage

// State is what is true of one vulnerability in one place.
type State string

// The states.
const (
	Vulnerable  State = "vulnerable"
	Available   State = "live patch available"
	LivePatched State = "live-patched"
	FixedOnDisk State = "fixed on disk, old in memory"
	NotRunning  State = "not the running kernel"
	NotAffected State = "not affected"
	Unknown     State = "unknown"
)

// States lists every state, worst first.
var States = []State{Vulnerable, Available, FixedOnDisk, Unknown, LivePatched, NotRunning, NotAffected}

// Row is the answer for one vulnerability in one place of one server.
type Row struct {
	CVE        string `json:"cve"`
	Component  string `json:"component"` // package that the scanner named
	Scope      string `json:"scope"`     // "running kernel", "library BUILD-ID" or "package on disk"
	State      State  `json:"state"`
	Severity   string `json:"severity"` // low, medium, high, critical or empty
	Title      string `json:"title"`
	Reason     string `json:"reason"`     // evidence in words
	Installed  string `json:"installed"`  // version on disk
	PatchPath  string `json:"patch_path"` // live patch that fixes it, or fixed it; empty = none
	PatchID    string `json:"patch_id"`
	PatchLevel int64  `json:"patch_level"`
	Library    string `json:"library"`   // path of the mapped library, for people
	Processes  int64  `json:"processes"` // processes that map it
	Patched    int64  `json:"patched"`   // of these, how many are live-patched
	Update     string `json:"update"`    // version of Component whose installation fixes it on disk; empty = none known
	Advisory   string `json:"advisory"`  // of that update
}
