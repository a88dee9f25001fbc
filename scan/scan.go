// Package scan reads what vulnerability scanners report.
//
// Reports come from other people's programs on machines that may be hostile:
// every size, count and depth has a limit, a document type declaration is
// refused (no entity can be defined), and nothing outside the given bytes is
// looked at. The package is pure. It must not decide what a finding means for
// a server: that is package coverage.
package scan

import (
	"errors"
	"io"
	"strings"
)

// Limits on one report. Sizes are bytes.
const (
	MaxReport   = 64 << 20
	MaxText     = 64 << 10 // one text; longer ones are refused
	MaxDepth    = 64       // nesting of criteria
	MaxEntries  = 200_000  // definitions, tests, items, ...: each
	MaxIDs      = 2_000    // identifiers of one rule
	MaxFindings = 500_000
)

// Errors with a documented meaning; Parse wraps them.
var (
	ErrFormat = errors.New("this is no report that can be read")
	ErrLimit  = errors.New("the report is larger than a report can be")
)

// State is the scanner's answer.
type State string

// The states of a finding.
const (
	Vulnerable    State = "vulnerable"
	NotVulnerable State = "not vulnerable" // looked at and not, or no longer, there
	Unknown       State = "unknown"        // the scanner could not tell
)

// Finding is what a scanner says of one vulnerability, or of the vulnerabilities
// of one advisory, in one package. Findings that are not vulnerable are kept: a
// later scan shows with them that an earlier finding is resolved.
type Finding struct {
	Definition string   // the scanner's name of the rule
	Title      string   // for people
	IDs        []string // CVE and other authorities' identifiers, without duplicates
	Severity   string   // critical, high, medium, low or ""
	Component  string   // package, "" when the rule names none
	Installed  string   // its version, "" when it is not installed or not told
	Fixed      string   // first version without the vulnerability, "" when not told
	State      State
}

// Report is one scanner's report about one host.
type Report struct {
	Scanner   string // openscap
	Host      string
	OS        string
	OSVersion string
	Findings  []Finding
	Applied   []string // identifiers that the scanner itself saw covered by a live patch
}

// Parse reads a report of OpenSCAP: OVAL results, or XCCDF results made from
// OVAL. Errors wrap ErrFormat or ErrLimit, or are those of r.
func Parse(r io.Reader) (*Report, error) {
	w := newWalker(r)
	root, err := w.root()
	if err != nil {
		return nil, err
	}
	var report *Report
	switch {
	case root.Name.Local == "oval_results" && root.Name.Space == nsOVAL:
		report, err = parseOVAL(w)
	case root.Name.Local == "Benchmark" && strings.HasPrefix(root.Name.Space, nsXCCDF):
		report, err = parseXCCDF(w)
	default:
		return nil, w.fail(ErrFormat, "it starts with "+root.Name.Local+", not with oval_results or Benchmark")
	}
	if err != nil {
		return nil, err
	}
	return report, w.end()
}

// severity gives scanners' words their common name.
func severity(word string) string {
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "critical":
		return "critical"
	case "high", "important":
		return "high"
	case "medium", "moderate":
		return "medium"
	case "low", "minor", "negligible", "unimportant":
		return "low"
	default:
		return ""
	}
}
