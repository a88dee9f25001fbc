package api

import (
	"context"
	"net/http"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

type enabled struct {
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Enabled bool `json:"enabled"`
	}
}

type whichKey struct {
	KeyID string `json:"key_id,omitempty" maxLength:"200" doc:"absent: the newest enabled key"`
}

type decision struct {
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Approve bool `json:"approve"`
	}
}

type enrolments struct {
	State string `query:"state" enum:"pending,approved,refused" doc:"absent: all"`
}

type serverFilter struct {
	Piece
	Query  string `query:"query" maxLength:"200" doc:"part of hostname, System ID or kernel"`
	State  string `query:"state" maxLength:"100" doc:"has a vulnerability in this state"`
	Online string `query:"online" enum:"online,silent"`
}

type upload struct {
	ID      string `path:"id" maxLength:"200"`
	RawBody []byte `contentType:"application/octet-stream"`
}

type taken struct {
	Open int `json:"open" doc:"open findings in the report"`
}

func (s *server) registerServers() {
	add(s, operation{method: http.MethodGet, path: "/keys", id: "keys", summary: "Registration keys, without their texts"},
		func(ctx context.Context, who access.Subject, _ *nothing) ([]fleet.Key, error) {
			return items(s.service.Keys(ctx, who))
		})
	add(s, operation{method: http.MethodPost, path: "/keys", id: "create-key", summary: "Create a Key for LivePatching; its text is shown once"},
		func(ctx context.Context, who access.Subject, in *body[platform.NewKey]) (platform.CreatedKey, error) {
			return s.service.CreateKey(ctx, who, in.Body)
		})
	act(s, operation{method: http.MethodPatch, path: "/keys/{id}", id: "change-key", summary: "Let a key enrol servers, or stop it"},
		func(ctx context.Context, who access.Subject, in *enabled) error {
			return s.service.SetKeyEnabled(ctx, who, in.ID, in.Body.Enabled)
		})
	act(s, operation{method: http.MethodDelete, path: "/keys/{id}", id: "delete-key", summary: "Delete a key; servers that enrolled with it stay"},
		func(ctx context.Context, who access.Subject, in *byID) error {
			return s.service.DeleteKey(ctx, who, in.ID)
		})
	add(s, operation{method: http.MethodPost, path: "/activate", id: "activate", summary: "Activate LivePatching: retrieve a key as install command"},
		func(ctx context.Context, who access.Subject, in *body[whichKey]) (platform.Install, error) {
			return s.service.ActivateLivePatching(ctx, who, in.Body.KeyID)
		})
	add(s, operation{method: http.MethodPost, path: "/servers", id: "add-server", summary: "Add new server: by registration key, or by Customer ID with a one-use token"},
		func(ctx context.Context, who access.Subject, in *body[platform.NewServer]) (platform.Install, error) {
			return s.service.AddServer(ctx, who, in.Body)
		})
	add(s, operation{method: http.MethodGet, path: "/server-tokens", id: "server-tokens", summary: "One-use tokens, without their texts"},
		func(ctx context.Context, who access.Subject, _ *nothing) ([]fleet.Token, error) {
			return items(s.service.Tokens(ctx, who))
		})
	add(s, operation{method: http.MethodGet, path: "/enrolments", id: "enrolments", summary: "Machines that asked with the bare Customer ID"},
		func(ctx context.Context, who access.Subject, in *enrolments) ([]fleet.EnrolmentRequest, error) {
			return items(s.service.Enrolments(ctx, who, fleet.EnrolmentState(in.State)))
		})
	add(s, operation{method: http.MethodPost, path: "/enrolments/{id}/decision", id: "decide-enrolment", summary: "Approve or refuse a machine"},
		func(ctx context.Context, who access.Subject, in *decision) (fleet.EnrolmentRequest, error) {
			return s.service.DecideEnrolment(ctx, who, in.ID, in.Body.Approve)
		})

	add(s, operation{method: http.MethodGet, path: "/servers", id: "servers", summary: "Servers by hostname"},
		func(ctx context.Context, who access.Subject, in *serverFilter) (fleet.Page[platform.ServerSummary], error) {
			return s.service.Servers(ctx, who, platform.ServerFilter{List: in.piece(), Query: in.Query, State: coverage.State(in.State), Online: in.Online})
		})
	add(s, operation{method: http.MethodGet, path: "/servers/{id}", id: "server", summary: "Everything about one server"},
		func(ctx context.Context, who access.Subject, in *byID) (platform.ServerDetail, error) {
			return s.service.Server(ctx, who, in.ID)
		})
	act(s, operation{method: http.MethodDelete, path: "/servers/{id}", id: "remove-server", summary: "Forget a server and free its licence; what is applied stays applied"},
		func(ctx context.Context, who access.Subject, in *byID) error {
			return s.service.RemoveServer(ctx, who, in.ID)
		})
	add(s, operation{method: http.MethodPost, path: "/servers/{id}/scan", id: "import-scan", summary: "Take in a scanner's report", max: platform.MaxUpload},
		func(ctx context.Context, who access.Subject, in *upload) (taken, error) {
			open, err := s.service.ImportScan(ctx, who, in.ID, in.RawBody)
			return taken{open}, err
		})
}
