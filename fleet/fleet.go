// Package fleet holds the nouns of the management platform: organisations, the
// servers they run, what was found on them, the jobs that fix it and the record
// of how each task went. Services, the store and the pages share these types;
// their JSON names are the REST API's.
//
// It is pure data. It must not read or write anything, and holds no rules:
// those are in coverage, rollout and access.
package fleet

import (
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/wire"
)

// Organisation is a customer of the partner, and one tenant.
type Organisation struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	CustomerID string    `json:"customer_id"` // the portal's name for it; never a secret
	CreatedAt  time.Time `json:"created_at"`
}

// Server is one enrolled system.
type Server struct {
	ID           string    `json:"id"` // System ID, given by the portal
	Organisation string    `json:"-"`
	Hostname     string    `json:"hostname"`
	MachineID    string    `json:"machine_id"`
	OS           string    `json:"os"`
	OSVersion    string    `json:"os_version"`
	Kernel       string    `json:"kernel"`
	KernelID     string    `json:"kernel_build_id"`
	Arch         string    `json:"arch"`
	Agent        string    `json:"agent"` // the agent's version
	BootID       string    `json:"boot_id"`
	IdentityKey  []byte    `json:"-"`
	ChannelKey   []byte    `json:"-"`
	Via          string    `json:"via"`   // how it enrolled: "key ID", "token ID" or "approved by NAME"
	Flags        []string  `json:"flags"` // what the portal noticed: clone, reinstall
	EnrolledAt   time.Time `json:"enrolled_at"`
	SeenAt       time.Time `json:"seen_at"`
	InventoryAt  time.Time `json:"inventory_at"` // zero before the first inventory
	Online       bool      `json:"online"`       // connected to this platform now
}

// Facts returns what the server said of itself, as the wire words it.
func (s *Server) Facts() wire.Facts {
	return wire.Facts{Hostname: s.Hostname, MachineID: s.MachineID, OS: s.OS, OSVersion: s.OSVersion,
		Kernel: s.Kernel, KernelID: s.KernelID, Arch: s.Arch}
}

// Library is one mapped library or program of a server.
type Library struct {
	BuildID   string `json:"build_id"`
	Path      string `json:"path"`
	Processes int64  `json:"processes"`
	Deleted   bool   `json:"deleted"` // the file on disk is gone or replaced
}

// Package is one installed package of a server.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`
}

// Applied is one live patch in force on a server, by its agent's signed word.
type Applied struct {
	Path      string    `json:"path"`
	SHA256    string    `json:"sha256"`
	Level     int64     `json:"level"`
	Processes int64     `json:"processes"`
	CVEs      []string  `json:"cves"`
	At        time.Time `json:"at"` // when the platform learnt it
}

// Quarantined is one live patch that a server's agent took off and never applies
// again, because processes died of it.
type Quarantined struct {
	Path   string    `json:"path"`
	SHA256 string    `json:"sha256"`
	Level  int64     `json:"level"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"` // by the agent's clock
}

// Finding is one answer of a scanner about one vulnerability on one server.
type Finding struct {
	Scanner    string    `json:"scanner"`
	Definition string    `json:"definition"`
	CVE        string    `json:"cve"`
	Component  string    `json:"component"`
	Installed  string    `json:"installed"`
	Fixed      string    `json:"fixed"` // version that the scanner names; may be empty
	Severity   string    `json:"severity"`
	Title      string    `json:"title"`
	Open       bool      `json:"open"` // the last scan says vulnerable
	Job        int64     `json:"job"`  // the scan; 0 for an uploaded report
	SeenAt     time.Time `json:"seen_at"`
}

// Coverage is one row of the coverage table: what is true of one vulnerability
// in one place of one server.
type Coverage struct {
	Server   string `json:"server"`
	Hostname string `json:"hostname"`
	coverage.Row
	ChangedAt time.Time `json:"changed_at"` // when State became what it is
}

// Update says that an ordinary package update fixes a vulnerability; the
// partner's own metadata.
type Update struct {
	CVE          string `json:"cve" maxLength:"200" minLength:"1"`
	Component    string `json:"component" maxLength:"200" minLength:"1"`
	Distribution string `json:"distribution" maxLength:"200" minLength:"1"` // debian-12
	FixedVersion string `json:"fixed_version" maxLength:"200" minLength:"1"`
	Advisory     string `json:"advisory,omitempty" maxLength:"200"`
}

// Fix is one vulnerability that a live patch closes.
type Fix struct {
	CVE          string `json:"cve"`
	Severity     string `json:"severity"`
	Component    string `json:"component"`
	Distribution string `json:"distribution"`
	FixedVersion string `json:"fixed_version"`
}

// Patch is one live patch of the catalogue.
type Patch struct {
	Path        string    `json:"path"`
	ID          string    `json:"id"`
	Kind        string    `json:"kind"` // kernel, user
	BuildID     string    `json:"build_id"`
	Arch        string    `json:"arch"`
	Release     string    `json:"release"`
	Library     string    `json:"library"`
	Level       int64     `json:"level"`
	Fixes       []Fix     `json:"fixes"`
	Functions   []string  `json:"functions"`
	Description string    `json:"description"`
	Builder     string    `json:"builder"`
	Length      int64     `json:"length"`
	SHA256      string    `json:"sha256"`
	FirstSeen   time.Time `json:"first_seen"`
	Withdrawn   bool      `json:"withdrawn"` // the portal does not name it any more
	Blocked     string    `json:"blocked"`   // why this organisation refuses it; empty = allowed
}

// Content is one signed file for scanners.
type Content struct {
	Path      string    `json:"path"`
	Scanner   string    `json:"scanner"`
	Format    string    `json:"format"`
	Title     string    `json:"title"`
	Length    int64     `json:"length"`
	SHA256    string    `json:"sha256"`
	FirstSeen time.Time `json:"first_seen"`
	Withdrawn bool      `json:"withdrawn"`
}

// Key is a registration key as the platform shows it. The text itself is kept
// encrypted and leaves the platform only through ActivateLivePatching.
type Key struct {
	ID          string    `json:"id"`
	Note        string    `json:"note"`
	ServerLimit int64     `json:"server_limit"` // 0 = no limit of its own
	Servers     int64     `json:"servers"`
	ExpiresAt   time.Time `json:"expires_at"` // zero = never
	Enabled     bool      `json:"enabled"`
	CreatedBy   string    `json:"created_by"`
	CreatedAt   time.Time `json:"created_at"`
}

// Token is a one-use token for one machine. Its text is shown once and never
// kept.
type Token struct {
	ID        string    `json:"id"`
	Note      string    `json:"note"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	UsedBy    string    `json:"used_by"` // System ID; empty = not used
}

// Facts describe a machine that asks to be enrolled, in its own words.
type Facts struct {
	Hostname  string `json:"hostname"`
	MachineID string `json:"machine_id"`
	OS        string `json:"os"`
	OSVersion string `json:"os_version"`
	Kernel    string `json:"kernel"`
	KernelID  string `json:"kernel_build_id"`
	Arch      string `json:"arch"`
}

// EnrolmentState is where an enrolment request stands.
type EnrolmentState string

// The states of an enrolment request.
const (
	EnrolmentPending  EnrolmentState = "pending"
	EnrolmentApproved EnrolmentState = "approved"
	EnrolmentRefused  EnrolmentState = "refused"
)

// EnrolmentRequest is a machine that knows only the Customer ID and waits for a
// person.
type EnrolmentRequest struct {
	ID          string         `json:"id"`
	Facts       Facts          `json:"facts"`
	Fingerprint string         `json:"fingerprint"` // SHA-256 of the identity key, first 16 hex digits
	Address     string         `json:"address"`     // where it connected from
	State       EnrolmentState `json:"state"`
	DecidedBy   string         `json:"decided_by"`
	DecidedAt   time.Time      `json:"decided_at"`
	CreatedAt   time.Time      `json:"created_at"`
	SeenAt      time.Time      `json:"seen_at"`
	SystemID    string         `json:"system_id"` // once enrolled
	IdentityKey []byte         `json:"-"`
	ChannelKey  []byte         `json:"-"`
}

// JobKind says what a job does.
type JobKind string

// The kinds of job.
const (
	ScanJob      JobKind = "scan"
	LivePatchJob JobKind = "livepatch"
	RevertJob    JobKind = "revert"
)

// Job is an order by a person to several servers.
type Job struct {
	ID    int64   `json:"id"` // counts up within the organisation
	Kind  JobKind `json:"kind"`
	Title string  `json:"title"`
	rollout.Job
	CreatedBy  string    `json:"created_by"`
	CreatedAt  time.Time `json:"created_at"`
	FinishedAt time.Time `json:"finished_at"` // zero while it runs
}

// Task is one order to one server.
type Task struct {
	ID       string `json:"id"`
	Job      int64  `json:"job"`
	Server   string `json:"server"`
	Hostname string `json:"hostname"`
	Action   string `json:"action"` // apply, revert, scan
	Path     string `json:"path"`   // target
	SHA256   string `json:"sha256"`
	Length   int64  `json:"length"`
	Level    int64  `json:"level"`
	BuildID  string `json:"build_id"`
	Scanner  string `json:"scanner"`
	rollout.Task
	Counter    int64     `json:"counter"` // of the last manifest; 0 before
	ChangedAt  time.Time `json:"changed_at"`
	FinishedAt time.Time `json:"finished_at"`
	Manifest   []byte    `json:"-"` // signed, as sent
}

// CheckOutcome is how one security check ended.
type CheckOutcome string

// The outcomes of a security check.
const (
	CheckPassed  CheckOutcome = "passed"
	CheckFailed  CheckOutcome = "failed"
	CheckSkipped CheckOutcome = "skipped"
)

// Check is one named security check of a task.
type Check struct {
	Task    string       `json:"task"`
	Name    string       `json:"name"`
	Outcome CheckOutcome `json:"outcome"`
	Detail  string       `json:"detail"`
	At      time.Time    `json:"at"`
}

// Process is what a task did to one process.
type Process struct {
	PID     int64  `json:"pid"`
	Start   int64  `json:"start"`
	Command string `json:"command"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Threads int64  `json:"threads"`
	StopNS  int64  `json:"stop_ns"` // nanoseconds
}

// Result is the signed report of a task, verified and opened.
type Result struct {
	Task       string    `json:"task"`
	Outcome    string    `json:"outcome"`
	Reason     string    `json:"reason"`
	Text       string    `json:"text"`
	Manifest   string    `json:"manifest"` // SHA-256 of the manifest it answers
	Processes  []Process `json:"processes"`
	ReceivedAt time.Time `json:"received_at"`
	Report     []byte    `json:"-"` // the signed report's bytes
}

// Event is one line of what happened, newest last. IDs count up within the
// organisation, so that a reader continues where it stopped.
type Event struct {
	ID     int64     `json:"id"`
	Kind   string    `json:"kind"` // job, task, check, server, enrolment, catalogue, alarm
	Job    int64     `json:"job"`  // 0 = none
	Task   string    `json:"task"`
	Server string    `json:"server"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
}

// Page is a piece of a list. Next continues it; empty = the end.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
	Total int64  `json:"total"`
}
