package platform

import (
	"context"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
)

// Service is the platform. Its methods may be called concurrently.
type Service struct{}

// SignIn checks name and password. address is where the attempt came from; it
// and the name are locked out for a while after too many wrong attempts.
func (s *Service) SignIn(ctx context.Context, name, password, address string) (Session, access.Subject, error) {
	return Session{}, access.Subject{}, ErrConflict
}

// Session returns who holds a session's secret, or access.ErrCredentials.
func (s *Service) Session(ctx context.Context, secret string) (access.Subject, error) {
	return access.Subject{}, ErrConflict
}

// Bearer returns who holds an API token, or access.ErrCredentials.
func (s *Service) Bearer(ctx context.Context, text string) (access.Subject, error) {
	return access.Subject{}, ErrConflict
}

// SignOut ends a session. An unknown one is no error.
func (s *Service) SignOut(ctx context.Context, secret string) error { return ErrConflict }

// ChangePassword sets the subject's own password and ends their other sessions.
// It is the only deed open to a subject with MustChange.
func (s *Service) ChangePassword(ctx context.Context, who access.Subject, current, password string) error {
	return ErrConflict
}

// Users lists the accounts.
func (s *Service) Users(ctx context.Context, who access.Subject) ([]User, error) {
	return nil, ErrConflict
}

// CreateUser makes an account with a one-time password.
func (s *Service) CreateUser(ctx context.Context, who access.Subject, in NewUser) (CreatedUser, error) {
	return CreatedUser{}, ErrConflict
}

// SetUserDisabled closes or opens an account; closing ends its sessions.
func (s *Service) SetUserDisabled(ctx context.Context, who access.Subject, id string, disabled bool) error {
	return ErrConflict
}

// APITokens lists the credentials of programs.
func (s *Service) APITokens(ctx context.Context, who access.Subject) ([]APIToken, error) {
	return nil, ErrConflict
}

// CreateAPIToken makes a credential for a program.
func (s *Service) CreateAPIToken(ctx context.Context, who access.Subject, in NewAPIToken) (CreatedAPIToken, error) {
	return CreatedAPIToken{}, ErrConflict
}

// DeleteAPIToken revokes a credential.
func (s *Service) DeleteAPIToken(ctx context.Context, who access.Subject, id string) error {
	return ErrConflict
}

// Audit lists who did what, newest first.
func (s *Service) Audit(ctx context.Context, who access.Subject, list List) (fleet.Page[audit.Entry], error) {
	return fleet.Page[audit.Entry]{}, ErrConflict
}

// Settings returns what the platform knows of itself.
func (s *Service) Settings(ctx context.Context, who access.Subject) (Settings, error) {
	return Settings{}, ErrConflict
}

// Overview returns the numbers of the first page.
func (s *Service) Overview(ctx context.Context, who access.Subject) (Overview, error) {
	return Overview{}, ErrConflict
}

// CreateKey is "Create a Key for LivePatching": the portal makes the key, the
// platform keeps it encrypted, the caller sees it once.
func (s *Service) CreateKey(ctx context.Context, who access.Subject, in NewKey) (CreatedKey, error) {
	return CreatedKey{}, ErrConflict
}

// Keys lists the organisation's registration keys, newest first.
func (s *Service) Keys(ctx context.Context, who access.Subject) ([]fleet.Key, error) {
	return nil, ErrConflict
}

// SetKeyEnabled lets a key enrol servers, or stops it. Enrolled servers stay.
func (s *Service) SetKeyEnabled(ctx context.Context, who access.Subject, id string, enabled bool) error {
	return ErrConflict
}

// DeleteKey removes a key here and at the portal. Enrolled servers stay.
func (s *Service) DeleteKey(ctx context.Context, who access.Subject, id string) error {
	return ErrConflict
}

// ActivateLivePatching is "Activate LivePatching": it retrieves and decrypts a
// key and returns the install command that carries it. Empty keyID = the newest
// enabled key.
func (s *Service) ActivateLivePatching(ctx context.Context, who access.Subject, keyID string) (Install, error) {
	return Install{}, ErrConflict
}

// AddServer is "Add new server", in either scenario.
func (s *Service) AddServer(ctx context.Context, who access.Subject, in NewServer) (Install, error) {
	return Install{}, ErrConflict
}

// Tokens lists the one-use tokens, newest first.
func (s *Service) Tokens(ctx context.Context, who access.Subject) ([]fleet.Token, error) {
	return nil, ErrConflict
}

// Enrolments lists machines that asked with a bare Customer ID; empty state = all.
func (s *Service) Enrolments(ctx context.Context, who access.Subject, state fleet.EnrolmentState) ([]fleet.EnrolmentRequest, error) {
	return nil, ErrConflict
}

// DecideEnrolment approves or refuses a pending request. The machine learns it
// when it asks again.
func (s *Service) DecideEnrolment(ctx context.Context, who access.Subject, id string, approve bool) (fleet.EnrolmentRequest, error) {
	return fleet.EnrolmentRequest{}, ErrConflict
}

// Servers lists servers by hostname.
func (s *Service) Servers(ctx context.Context, who access.Subject, f ServerFilter) (fleet.Page[ServerSummary], error) {
	return fleet.Page[ServerSummary]{}, ErrConflict
}

// Server returns everything about one server.
func (s *Service) Server(ctx context.Context, who access.Subject, id string) (ServerDetail, error) {
	return ServerDetail{}, ErrConflict
}

// RemoveServer forgets a server here and frees its licence at the portal. What
// is applied on it stays applied.
func (s *Service) RemoveServer(ctx context.Context, who access.Subject, id string) error {
	return ErrConflict
}

// ScanServers is "Scan for vulnerabilities": a job of kind scan.
func (s *Service) ScanServers(ctx context.Context, who access.Subject, in ScanRequest) (fleet.Job, error) {
	return fleet.Job{}, ErrConflict
}

// ImportScan takes in a scanner's report for one server.
func (s *Service) ImportScan(ctx context.Context, who access.Subject, server string, report []byte) (int, error) {
	return 0, ErrConflict
}

// Coverage lists what is true of each vulnerability on each server, worst first.
func (s *Service) Coverage(ctx context.Context, who access.Subject, f CoverageFilter) (fleet.Page[fleet.Coverage], error) {
	return fleet.Page[fleet.Coverage]{}, ErrConflict
}

// Vulnerabilities lists vulnerabilities across the organisation, worst first.
func (s *Service) Vulnerabilities(ctx context.Context, who access.Subject, f CoverageFilter) (fleet.Page[Vulnerability], error) {
	return fleet.Page[Vulnerability]{}, ErrConflict
}

// RefreshCatalogue is "Check for available Live Patches": it refreshes the
// portal's signed repository, keeps the verified files and maps them to the
// findings.
func (s *Service) RefreshCatalogue(ctx context.Context, who access.Subject) (CatalogueChange, error) {
	return CatalogueChange{}, ErrConflict
}

// Catalogue lists what the portal offers, as last verified.
func (s *Service) Catalogue(ctx context.Context, who access.Subject) (Catalogue, error) {
	return Catalogue{}, ErrConflict
}

// Patch returns one live patch of the catalogue by its target path.
func (s *Service) Patch(ctx context.Context, who access.Subject, path string) (fleet.Patch, error) {
	return fleet.Patch{}, ErrConflict
}

// BlockPatch refuses a live patch for this organisation, with a reason; an empty
// reason allows it again. What is applied stays applied.
func (s *Service) BlockPatch(ctx context.Context, who access.Subject, path, reason string) error {
	return ErrConflict
}

// ImportUpdates adds or replaces package updates of the partner's own metadata
// and returns how many there are now.
func (s *Service) ImportUpdates(ctx context.Context, who access.Subject, updates []fleet.Update) (int64, error) {
	return 0, ErrConflict
}

// Updates lists the package updates of the partner's own metadata.
func (s *Service) Updates(ctx context.Context, who access.Subject, list List) (fleet.Page[fleet.Update], error) {
	return fleet.Page[fleet.Update]{}, ErrConflict
}

// PlanLivePatches says what LivePatchFound would do.
func (s *Service) PlanLivePatches(ctx context.Context, who access.Subject, in PatchRequest) (Plan, error) {
	return Plan{}, ErrConflict
}

// LivePatchFound is "LivePatch found vulnerabilities": a job that applies the
// newest live patch wherever coverage says that one is available. With nothing
// to do it returns ErrConflict and makes no job.
func (s *Service) LivePatchFound(ctx context.Context, who access.Subject, in PatchRequest) (fleet.Job, error) {
	return fleet.Job{}, ErrConflict
}

// CreateRevertJob makes a job that takes one live patch off.
func (s *Service) CreateRevertJob(ctx context.Context, who access.Subject, in RevertRequest) (fleet.Job, error) {
	return fleet.Job{}, ErrConflict
}

// Jobs lists jobs, newest first.
func (s *Service) Jobs(ctx context.Context, who access.Subject, f JobFilter) (fleet.Page[fleet.Job], error) {
	return fleet.Page[fleet.Job]{}, ErrConflict
}

// Job returns everything about one job.
func (s *Service) Job(ctx context.Context, who access.Subject, id int64) (JobDetail, error) {
	return JobDetail{}, ErrConflict
}

// StopJob starts no further task of a job. What runs ends by itself.
func (s *Service) StopJob(ctx context.Context, who access.Subject, id int64) error {
	return ErrConflict
}

// Events returns events after an id, oldest first; after = -1 returns the
// newest ones, still oldest first.
func (s *Service) Events(ctx context.Context, who access.Subject, after int64, f EventFilter) ([]fleet.Event, error) {
	return nil, ErrConflict
}

// Watch returns a channel that receives a value whenever the organisation has
// new events (values coalesce; read them with Events), and a function that ends
// the watch and must be called.
func (s *Service) Watch(who access.Subject) (<-chan struct{}, func()) { return nil, func() {} }
