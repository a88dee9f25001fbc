package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
)

// ProblemPrefix is in front of the code in the type of a problem (RFC 9457).
const ProblemPrefix = "urn:livemend:platform:"

// problem makes the answer for a refused request.
func problem(status int, code, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Type: ProblemPrefix + code, Title: http.StatusText(status), Status: status, Detail: detail}
}

// refusal turns an error of the service into its answer. What is the platform's
// own failure is logged and reaches nobody else.
func (s *server) refusal(ctx context.Context, err error) *huma.ErrorModel {
	words := err.Error()
	var known *platform.Problem
	if errors.As(err, &known) {
		words = known.Text
	}
	switch {
	case errors.Is(err, access.ErrCredentials):
		return problem(http.StatusUnauthorized, "credentials", "The name, password, session or token is wrong or has ended. Nothing was changed; sign in again.")
	case errors.Is(err, access.ErrLocked):
		return problem(http.StatusTooManyRequests, "locked", words)
	case errors.Is(err, access.ErrChangePassword):
		return problem(http.StatusForbidden, "change-password", words)
	case errors.Is(err, access.ErrForbidden):
		return problem(http.StatusForbidden, "forbidden", "Your role does not allow this. Nothing was changed; ask an administrator.")
	case errors.Is(err, access.ErrWeak):
		return problem(http.StatusUnprocessableEntity, "weak-password", words)
	case errors.Is(err, platform.ErrNotFound):
		return problem(http.StatusNotFound, "not-found", words)
	case errors.Is(err, platform.ErrInput):
		return problem(http.StatusUnprocessableEntity, "input", words)
	case errors.Is(err, platform.ErrConflict):
		return problem(http.StatusConflict, "conflict", words)
	case errors.Is(err, platform.ErrPortal):
		s.log.WarnContext(ctx, "the portal", "error", unwrapped(err))
		return problem(http.StatusBadGateway, "portal", words)
	case ctx.Err() != nil:
		return problem(http.StatusServiceUnavailable, "cancelled", "The request ended before its answer.")
	}
	s.log.ErrorContext(ctx, "answering a request", "error", err)
	return problem(http.StatusInternalServerError, "internal", "The platform failed. Whether the request took effect is unknown; look before you repeat it.")
}

// unwrapped returns the reason behind a Problem's words, for the log.
func unwrapped(err error) error {
	var known *platform.Problem
	if errors.As(err, &known) {
		return known.Err
	}
	return err
}

// write answers with a problem where no operation of the interface does.
func (s *server) write(w http.ResponseWriter, r *http.Request, p *huma.ErrorModel) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.log.InfoContext(r.Context(), "an answer was not taken", "error", err)
	}
}
