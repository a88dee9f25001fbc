package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

type signIn struct {
	Name     string `json:"name" maxLength:"200"`
	Password string `json:"password" maxLength:"1000"`
}

type newPassword struct {
	Current string `json:"current" maxLength:"1000"`
	New     string `json:"new" maxLength:"1000" doc:"12 to 200 characters"`
}

// signedIn says who somebody is and carries the session's cookie.
type signedIn struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      access.Subject
}

type disabled struct {
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Disabled bool `json:"disabled"`
	}
}

func (s *server) cookie(secret string, expires time.Time) http.Cookie {
	return http.Cookie{Name: platform.SessionCookie, Value: secret, Path: "/", Expires: expires, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode}
}

func (s *server) registerPeople() {
	huma.Register(s.api, huma.Operation{OperationID: "sign-in", Method: http.MethodPost, Path: Prefix + "/session", Summary: "Sign in",
		Security: []map[string][]string{}, MaxBodyBytes: maxBody, Errors: []int{http.StatusUnauthorized, http.StatusTooManyRequests}},
		func(ctx context.Context, in *body[signIn]) (*signedIn, error) {
			session, who, err := s.service.SignIn(ctx, in.Body.Name, in.Body.Password, callerOf(ctx).address)
			if err != nil {
				return nil, s.refusal(ctx, err)
			}
			return &signedIn{SetCookie: s.cookie(session.Secret, session.ExpiresAt), Body: who}, nil
		})
	add(s, operation{method: http.MethodGet, path: "/session", id: "who-am-i", summary: "Who is signed in"},
		func(_ context.Context, who access.Subject, _ *nothing) (access.Subject, error) { return who, nil })
	act(s, operation{method: http.MethodDelete, path: "/session", id: "sign-out", summary: "Sign out"},
		func(ctx context.Context, _ access.Subject, _ *nothing) error {
			return s.service.SignOut(ctx, callerOf(ctx).session)
		})
	act(s, operation{method: http.MethodPut, path: "/password", id: "change-password", summary: "Change your own password; your other sessions end"},
		func(ctx context.Context, who access.Subject, in *body[newPassword]) error {
			return s.service.ChangePassword(ctx, who, callerOf(ctx).session, in.Body.Current, in.Body.New)
		})

	add(s, operation{method: http.MethodGet, path: "/users", id: "users", summary: "Accounts"},
		func(ctx context.Context, who access.Subject, _ *nothing) ([]platform.User, error) {
			return items(s.service.Users(ctx, who))
		})
	add(s, operation{method: http.MethodPost, path: "/users", id: "create-user", summary: "Make an account; its one-time password is shown once"},
		func(ctx context.Context, who access.Subject, in *body[platform.NewUser]) (platform.CreatedUser, error) {
			return s.service.CreateUser(ctx, who, in.Body)
		})
	act(s, operation{method: http.MethodPatch, path: "/users/{id}", id: "change-user", summary: "Close or open an account"},
		func(ctx context.Context, who access.Subject, in *disabled) error {
			return s.service.SetUserDisabled(ctx, who, in.ID, in.Body.Disabled)
		})
	add(s, operation{method: http.MethodPost, path: "/users/{id}/password", id: "reset-password", summary: "Give an account a new one-time password, which is shown once"},
		func(ctx context.Context, who access.Subject, in *byID) (platform.CreatedUser, error) {
			return s.service.ResetPassword(ctx, who, in.ID)
		})
	add(s, operation{method: http.MethodGet, path: "/tokens", id: "tokens", summary: "API tokens"},
		func(ctx context.Context, who access.Subject, _ *nothing) ([]platform.APIToken, error) {
			return items(s.service.APITokens(ctx, who))
		})
	add(s, operation{method: http.MethodPost, path: "/tokens", id: "create-token", summary: "Make an API token; its text is shown once"},
		func(ctx context.Context, who access.Subject, in *body[platform.NewAPIToken]) (platform.CreatedAPIToken, error) {
			return s.service.CreateAPIToken(ctx, who, in.Body)
		})
	act(s, operation{method: http.MethodDelete, path: "/tokens/{id}", id: "delete-token", summary: "Revoke an API token"},
		func(ctx context.Context, who access.Subject, in *byID) error {
			return s.service.DeleteAPIToken(ctx, who, in.ID)
		})
	add(s, operation{method: http.MethodGet, path: "/audit", id: "audit", summary: "Who did what, newest first"},
		func(ctx context.Context, who access.Subject, in *Piece) (fleet.Page[audit.Entry], error) {
			page, err := s.service.Audit(ctx, who, in.piece())
			page.Items, err = items(page.Items, err)
			return page, err
		})
	add(s, operation{method: http.MethodGet, path: "/settings", id: "settings", summary: "What the platform knows of itself"},
		func(ctx context.Context, who access.Subject, _ *nothing) (platform.Settings, error) {
			return s.service.Settings(ctx, who)
		})
	add(s, operation{method: http.MethodGet, path: "/overview", id: "overview", summary: "The numbers of the first page"},
		func(ctx context.Context, who access.Subject, _ *nothing) (platform.Overview, error) {
			return s.service.Overview(ctx, who)
		})
}
