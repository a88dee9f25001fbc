// Package wire is the contract between agent and platform: every message that
// crosses the channel, and the version history of the protocol. It has no
// behaviour but encoding and decoding.
//
// Messages are compact JSON (package cjson). A decoder ignores fields it does
// not know, so fields may be added; a field never changes its meaning.
// The agent links this package: no fmt, no encoding/json.
package wire

// Version is the protocol version that this build speaks. Raise it when a
// message is added or gains a field that matters, with a dated line:
//
//	1  2026-11-23  first: hello, enrolment, inventory, work, metadata, target, progress, result, alarm
//	2  2026-11-26  an inventory lists the patches in quarantine
//	3  2026-11-26  an inventory says whether kernel patches are loaded at all
const Version = 3

// Method names a request. The agent asks, the platform answers. Numbers are
// never reused.
type Method uint16

// The requests.
const (
	Hello     Method = 1  // Greeting -> Welcome; the first request on every connection
	Challenge Method = 2  // empty -> 32 random bytes, once per connection, for Enrolment
	Enrol     Method = 3  // Enrolment -> Admission
	Inventory Method = 4  // Snapshot -> empty
	Work      Method = 5  // empty -> a signed manifest (bytes), or empty after WorkWait without work
	Metadata  Method = 6  // Range with a metadata file's name as Path and no hash -> bytes; a piece shorter than asked for is the last
	Target    Method = 7  // Range -> bytes
	Progress  Method = 8  // Step -> empty; for people's eyes, may be lost
	Result    Method = 9  // a signed report (bytes) -> empty, after it was stored durably
	Alarm     Method = 10 // Attack -> empty
)

// WorkWait is how long, in seconds, the platform holds a Work request open.
const WorkWait = 50

// Limits on what crosses the channel.
const (
	MaxFrame    = 1 << 20   // bytes of one request or response
	MaxChunk    = 256 << 10 // bytes of a target in one response
	MaxMessage  = 4096      // bytes of a text for people
	MaxID       = 200       // bytes of an identifier or name
	MaxLibs     = 20_000    // mapped libraries in a snapshot
	MaxPackages = 20_000    // packages in a snapshot
	MaxReport   = 768 << 10 // bytes of a signed report

	MaxQuarantined = 1000 // patches in quarantine in a snapshot
)

// Code says what went wrong with a request. Codes are append-only.
type Code uint16

// The codes.
const (
	CodeInternal  Code = 1 // the platform failed; ask again later
	CodeMalformed Code = 2 // the request does not decode or breaks a limit
	CodeUnknown   Code = 3 // the agent has no identity here: enrol first
	CodeRefused   Code = 4 // key, token or person said no; asking again will not help
	CodePending   Code = 5 // a person has to approve; ask again on a later connection
	CodeNotFound  Code = 6 // no such file or task
	CodeBusy      Code = 7 // too many requests; wait and ask again
	CodeOutdated  Code = 8 // the agent's protocol version is not supported any more
)

// Error is a refusal as it crosses the channel. Message is for people and says
// what is safe and what to do next; it never holds internal detail.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return e.Message }

// Greeting introduces the agent.
type Greeting struct {
	Version  int64  // protocol
	Agent    string // agent's own version
	SystemID string // empty before enrolment
	BootID   string // /proc/sys/kernel/random/boot_id
}

// Welcome answers a Greeting.
type Welcome struct {
	Version int64
	Time    int64 // server's clock, seconds since 1970; informative only
	Known   bool  // the channel key belongs to an enrolled system
}

// Facts describe the system at enrolment.
type Facts struct {
	Hostname  string
	MachineID string
	OS        string // debian
	OSVersion string // 12
	Kernel    string // uname -r
	KernelID  string // GNU build-id of the running kernel, "" when unreadable
	Arch      string
}

// Enrolment asks for a System ID. Credential is one of: a registration key's
// id, a one-use token's id, or a bare Customer ID; Proof is over the challenge
// (package enrol). Same IdentityKey again = same System ID, no second licence.
type Enrolment struct {
	Facts       Facts
	Credential  string
	KeyProof    []byte // by the key pair derived from the credential's secret; empty for a bare Customer ID
	IdentityKey []byte // Ed25519 public key
	ChannelKey  []byte // X25519 public key: the one of this connection
	Identity    []byte // proof by the identity key over the same bytes
}

// Admission answers an Enrolment.
type Admission struct {
	SystemID string
	Customer string // display name
}

// Library is one shared library or program image mapped by at least one process.
type Library struct {
	BuildID   string
	Path      string // as the mapping shows it; never used to match
	Processes int64
	Deleted   bool // the file on disk is gone or replaced
}

// Package is one installed distribution package.
type Package struct {
	Name    string
	Version string
	Source  string // source package, "" when the same
}

// Snapshot is what the agent sees on its system.
type Snapshot struct {
	Facts     Facts
	BootID    string
	Libraries []Library
	Packages  []Package
	Applied   []Applied

	Quarantined  []Quarantined // since version 2
	KernelHalted bool          // since version 3: no kernel patch is loaded until a person at the server allows it
}

// Quarantined is one patch that the agent took off and never applies again,
// because processes died of it.
type Quarantined struct {
	BuildID string
	Path    string // target path in the repository
	SHA256  string // of the artifact
	Level   int64
	Reason  string // for people
	Time    int64  // seconds since 1970
}

// Applied is one patch that is in force.
type Applied struct {
	Path      string // target path in the repository
	SHA256    string
	Level     int64
	Processes int64    // processes it is applied to
	CVEs      []string // covered
}

// Range asks for a piece of a target file.
type Range struct {
	Path   string
	SHA256 string
	Off    int64
	Len    int64 // at most MaxChunk
}

// Step is progress on a task.
type Step struct {
	Task string
	Name string // short: verify, download, apply
	Text string // for people
}

// Attack reports that something signed was wrong in a way that a fault does not
// explain.
type Attack struct {
	Kind string // error name from package trust: rollback, threshold, hash, wrong-system, ...
	Text string
}

// Outcome is how a task or one process of it ended.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // did what was asked
	Nothing Outcome = "nothing" // nothing to do here: no process maps the library
	Failed  Outcome = "failed"  // tried, nothing is changed
	Refused Outcome = "refused" // not tried: signature, policy or identity said no
	Partial Outcome = "partial" // some processes could not be patched yet
)

// ProcessResult is the truth about one process.
type ProcessResult struct {
	PID     int64
	Start   int64 // start time in clock ticks since boot: with PID it names the process
	Command string
	Outcome Outcome
	Reason  string // why not, in words
	Threads int64
	StopNS  int64 // how long all threads were stopped, nanoseconds
}

// Report is the result of one task. It is signed by the agent's identity key.
type Report struct {
	SystemID  string
	Task      string
	Action    string
	Manifest  string // SHA-256 of the manifest's bytes
	Path      string // target
	Outcome   Outcome
	Reason    string // error class from package trust or engine, "" when done
	Text      string // for people
	Processes []ProcessResult
	Scan      []byte // scanner's report, for a scan task: gzip
	Applied   []Applied
	BootID    string
	Time      int64 // agent's clock, seconds since 1970
}
