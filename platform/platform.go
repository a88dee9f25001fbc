// Package platform is the partner's management platform: the use cases behind
// its pages, its REST API and the agents' end of the channel.
//
// The organisation that a call works on comes from its access.Subject (a
// signed-in person or an API token) or from the agent's key, never from the
// request. The package talks to the portal only through the portal's public
// client and its signed repository. It knows nothing of HTTP, HTML or frames,
// and holds no signing key: those live in a child process.
package platform

import (
	"errors"
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
)

// SessionCookie is the name of the cookie that carries a session's secret, for
// pages and REST API alike.
const SessionCookie = "livemend_session"

// Limits on what callers may ask for or send.
const (
	MaxPage     = 500      // rows of one page of a list
	DefaultPage = 50       // rows when the caller does not say
	MaxUpdates  = 50_000   // package updates in one import
	MaxSelected = 20_000   // servers or vulnerabilities named in one request
	MaxNote     = 500      // bytes of a note or name
	MaxUpload   = 64 << 20 // bytes of an uploaded scan report
)

// Errors that callers tell apart; others are the platform's own failures, whose
// detail belongs in the log.
var (
	ErrNotFound = errors.New("there is no such thing here")
	ErrInput    = errors.New("the request is not valid")
	ErrConflict = errors.New("this does not fit the present state")
	ErrPortal   = errors.New("the portal did not answer as it should")
)

// Problem is an error with words for people: what happened, what is safe, what
// to do next. It wraps one of the package's errors.
type Problem struct {
	Err  error
	Text string
}

func (p *Problem) Error() string { return p.Text }

// Unwrap returns the package error that says what kind of problem it is.
func (p *Problem) Unwrap() error { return p.Err }

// List says which piece of a list is wanted.
type List struct {
	After string // Next of the page before; empty = from the start
	Limit int    // 0 = DefaultPage; at most MaxPage
}

// Settings is what the platform knows of itself, for the settings page.
type Settings struct {
	Organisation fleet.Organisation `json:"organisation"`
	PortalURL    string             `json:"portal_url"`
	PublicURL    string             `json:"public_url"`
	TrustDigest  string             `json:"trust_digest"` // what agents pin
	Engine       string             `json:"engine"`       // sqlite, postgres
	CheckCommand string             `json:"check_command"`
	BothInOne    bool               `json:"both_in_one"` // portal and platform in one process: for trying out
	Silence      time.Duration      `json:"silence_ns"`  // after which an unanswered task has failed
}

// Overview is the numbers of the first page.
type Overview struct {
	Servers     int64                    `json:"servers"`
	Online      int64                    `json:"online"`
	Silent      int64                    `json:"silent"`
	Pending     int64                    `json:"pending"`    // enrolment requests
	States      map[coverage.State]int64 `json:"states"`     // rows of coverage
	Severities  map[string]int64         `json:"severities"` // rows that are vulnerable or have a live patch available
	RunningJobs int64                    `json:"running_jobs"`
	RecentJobs  []fleet.Job              `json:"recent_jobs"`
	Events      []fleet.Event            `json:"events"` // newest first
	Catalogue   CatalogueState           `json:"catalogue"`
}

// ServerFilter narrows the list of servers.
type ServerFilter struct {
	List
	Query  string         // part of hostname, System ID or kernel
	State  coverage.State // has at least one row in this state
	Online string         // "online", "silent" or empty
}

// ServerSummary is one line of the list of servers.
type ServerSummary struct {
	fleet.Server
	States map[coverage.State]int64 `json:"states"`
}

// ServerDetail is everything about one server.
type ServerDetail struct {
	fleet.Server
	Libraries []fleet.Library `json:"libraries"`
	Packages  []fleet.Package `json:"packages"`
	Applied   []fleet.Applied `json:"applied"`

	Quarantined  []fleet.Quarantined `json:"quarantined"`
	KernelHalted bool                `json:"kernel_halted" doc:"it went down twice with a kernel patch and loads none until a person at the server allows it"`

	Coverage []fleet.Coverage `json:"coverage"`
	Findings []fleet.Finding  `json:"findings"`
	Tasks    []fleet.Task     `json:"tasks"`  // newest first
	Events   []fleet.Event    `json:"events"` // newest first
}

// CoverageFilter narrows the coverage rows.
type CoverageFilter struct {
	List
	State    coverage.State
	Server   string
	CVE      string
	Severity string
	Query    string // part of CVE, component, title or hostname
}

// Vulnerability is one vulnerability across the organisation.
type Vulnerability struct {
	CVE      string                   `json:"cve"`
	Title    string                   `json:"title"`
	Severity string                   `json:"severity"`
	Servers  int64                    `json:"servers"`
	States   map[coverage.State]int64 `json:"states"`  // rows
	Patches  []fleet.Patch            `json:"patches"` // live patches that fix it, of the catalogue
	Updates  []fleet.Update           `json:"updates"` // ordinary package updates that fix it
}

// CatalogueState says how fresh the catalogue is.
type CatalogueState struct {
	RefreshedAt time.Time `json:"refreshed_at"` // zero = never
	Version     int64     `json:"version"`      // of the signed targets metadata
	Patches     int64     `json:"patches"`      // not withdrawn
	Error       string    `json:"error"`        // why the last refresh failed; empty = it did not
}

// Catalogue is what the portal offers, verified.
type Catalogue struct {
	CatalogueState
	Items    []fleet.Patch   `json:"items"`
	Contents []fleet.Content `json:"contents"`
}

// CatalogueChange is what a refresh brought.
type CatalogueChange struct {
	CatalogueState
	New       []fleet.Patch   `json:"new"` // since somebody last looked
	Withdrawn []fleet.Patch   `json:"withdrawn"`
	Contents  []fleet.Content `json:"contents"` // new scanner content
}

// ScanRequest orders scans.
type ScanRequest struct {
	Servers []string `json:"servers,omitempty" maxItems:"20000"` // System IDs; empty = all
	Content string   `json:"content,omitempty" maxLength:"500"`  // target path; empty = the newest that the catalogue has
	Scanner string   `json:"scanner,omitempty" maxLength:"100"`  // empty = openscap
}

// PatchRequest orders live patches for what coverage says is available.
type PatchRequest struct {
	CVEs       []string `json:"cves,omitempty" maxItems:"20000"`    // empty = all
	Servers    []string `json:"servers,omitempty" maxItems:"20000"` // System IDs; empty = all
	FirstStage int      `json:"first_stage,omitempty" minimum:"0"`  // servers of the first stage; 0 = one
}

// RevertRequest takes live patches off again.
type RevertRequest struct {
	Path    string   `json:"path" maxLength:"500"`               // target
	Servers []string `json:"servers,omitempty" maxItems:"20000"` // empty = all that have it
}

// Plan is what a job would do, before somebody says yes.
type Plan struct {
	Servers int64         `json:"servers"`
	Tasks   int64         `json:"tasks"`
	CVEs    []string      `json:"cves"`
	Patches []fleet.Patch `json:"patches"`
	Stages  []int         `json:"stages"`  // servers per stage
	Skipped []PlanSkip    `json:"skipped"` // what is left out, and why
	Text    string        `json:"text"`    // one sentence: what will happen, to how many, how to undo it
}

// PlanSkip is a server that a job leaves out.
type PlanSkip struct {
	Server   string `json:"server"`
	Hostname string `json:"hostname"`
	Reason   string `json:"reason"`
}

// JobFilter narrows the list of jobs.
type JobFilter struct {
	List
	Kind  fleet.JobKind
	State rollout.JobState
}

// TaskDetail is a task with the proof of how it went.
type TaskDetail struct {
	fleet.Task
	Checks []fleet.Check `json:"checks"`
	Result *fleet.Result `json:"result,omitempty"`
}

// JobDetail is everything about one job.
type JobDetail struct {
	fleet.Job
	Gate   string        `json:"gate"` // what it waits for, in words
	Tasks  []TaskDetail  `json:"tasks"`
	Events []fleet.Event `json:"events"` // oldest first
}

// EventFilter narrows the feed of events.
type EventFilter struct {
	Job    int64
	Server string
	Limit  int // 0 = DefaultPage
}

// NewKey asks for a registration key.
type NewKey struct {
	Note        string    `json:"note,omitempty" maxLength:"500"`
	ServerLimit int64     `json:"server_limit,omitempty" minimum:"0"` // 0 = no limit of its own
	ExpiresAt   time.Time `json:"expires_at,omitzero"`                // zero = never
}

// CreatedKey is a new key with its text, which is shown this once.
type CreatedKey struct {
	fleet.Key
	Text string `json:"text"`
}

// Scenario is one of the whitepaper's two ways to add a server.
type Scenario string

// The scenarios.
const (
	ByKey        Scenario = "key"      // 1: a registration key
	ByCustomerID Scenario = "customer" // 2: the Customer ID, with a one-use token
)

// NewServer asks for the way to add a server.
type NewServer struct {
	Scenario Scenario `json:"scenario" enum:"key,customer"`
	KeyID    string   `json:"key_id,omitempty" maxLength:"200"` // scenario key; empty = the newest enabled one
	Note     string   `json:"note,omitempty" maxLength:"500"`
}

// Artifact is a file whose hash is shown to those who check.
type Artifact struct {
	Name   string `json:"name"`
	Arch   string `json:"arch"`
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

// Install is how to install and enrol an agent. Command holds a secret in
// scenario 1 and for a one-use token.
type Install struct {
	Scenario     Scenario   `json:"scenario"`
	Command      string     `json:"command"` // for a shell on the new server
	KeyID        string     `json:"key_id,omitempty"`
	Key          string     `json:"key,omitempty"` // text of the registration key
	TokenID      string     `json:"token_id,omitempty"`
	Token        string     `json:"token,omitempty"` // text of the one-use token, shown this once
	CustomerID   string     `json:"customer_id"`
	TrustDigest  string     `json:"trust_digest"`
	ScriptURL    string     `json:"script_url"`
	ScriptSHA256 string     `json:"script_sha256"`
	Packages     []Artifact `json:"packages"`
	ExpiresAt    time.Time  `json:"expires_at,omitzero"` // of the token
}

// User is a person with an account.
type User struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Role       string    `json:"role"`
	MustChange bool      `json:"must_change"`
	Disabled   bool      `json:"disabled"`
	CreatedAt  time.Time `json:"created_at"`
	SignedInAt time.Time `json:"signed_in_at"`
}

// NewUser asks for an account.
type NewUser struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
	Role string `json:"role" enum:"viewer,operator,admin"`
}

// CreatedUser is a new account with its one-time password, shown this once.
type CreatedUser struct {
	User
	OneTimePassword string `json:"one_time_password"`
}

// APIToken is a credential for programs.
type APIToken struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero = never
	UsedAt    time.Time `json:"used_at"`
}

// NewAPIToken asks for a credential for programs.
type NewAPIToken struct {
	Name      string    `json:"name" minLength:"1" maxLength:"100"`
	Role      string    `json:"role" enum:"viewer,operator,admin"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// CreatedAPIToken is a new credential with its text, shown this once.
type CreatedAPIToken struct {
	APIToken
	Text string `json:"text"`
}

// Session is a signed-in person. Secret goes into the cookie and nowhere else;
// the platform keeps its hash.
type Session struct {
	Secret    string
	ExpiresAt time.Time
}
