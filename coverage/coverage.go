// Package coverage says what is true of a vulnerability on a server, with
// evidence: for each vulnerability and each place where it can be (running
// kernel, library in memory, package on disk) one state, the live patch that
// would fix it and the ordinary package update that would.
//
// It is pure: no I/O, no clock. It never guesses an "effective version": a
// place in memory is identified by build-id only.
package coverage

import (
	"cmp"
	"slices"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

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

// Finding is what a scanner said of one vulnerability.
type Finding struct {
	CVE       string
	Component string
	Installed string
	Fixed     string // version that the scanner names; may be empty
	Severity  string
	Title     string
	Scanner   string
	Open      bool // the scanner's last word is "vulnerable"
}

// Patch is one live patch of the catalogue. A withdrawn or blocked patch is
// never offered, but what it does where it is in force still counts.
type Patch struct {
	Path     string
	Metadata *patch.Metadata
	Refused  string // why it is not offered: withdrawn, or the reason of a block; empty = offered
}

// Update says that a version of a package fixes a vulnerability on disk.
type Update struct {
	CVE          string
	Component    string
	Distribution string // debian-12
	FixedVersion string
	Advisory     string
}

// Input is everything that is known of one server, and the catalogue.
type Input struct {
	Known     bool // an inventory was received
	Facts     wire.Facts
	Libraries []wire.Library
	Packages  []wire.Package
	Applied   []wire.Applied // by the agent's signed word
	Findings  []Finding
	Patches   []Patch
	Updates   []Update
}

// Compute returns what is true, sorted by vulnerability, component and scope:
// at least one row for every finding, and rows for what live patches in force
// cover. The order of the input does not matter.
func Compute(in Input) []Row {
	c := newComputer(in)
	var rows []Row
	for _, s := range c.subjects() {
		memory := c.inMemory(s)
		if len(memory) == 0 {
			memory = append(memory, c.onDisk(s))
		}
		rows = append(rows, memory...)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.CVE, b.CVE), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Scope, b.Scope))
	})
	return rows
}
