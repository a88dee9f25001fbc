package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/client"
)

// statuses gives each refusal its HTTP status.
var statuses = map[portal.Kind]int{
	portal.Invalid:         http.StatusUnprocessableEntity,
	portal.Unauthenticated: http.StatusUnauthorized,
	portal.Forbidden:       http.StatusForbidden,
	portal.NotFound:        http.StatusNotFound,
	portal.KeyRefused:      http.StatusForbidden,
	portal.Conflict:        http.StatusConflict,
}

// problem is the one place where an error becomes an answer (RFC 9457). What
// is not meant for the caller goes to the log.
func (s *server) problem(ctx context.Context, err error) *huma.ErrorModel {
	var refusal *portal.Error
	if errors.As(err, &refusal) {
		return newProblem(statuses[refusal.Kind], string(refusal.Kind), refusal.Detail)
	}
	if ctx.Err() != nil {
		return newProblem(http.StatusServiceUnavailable, "timeout",
			"the request took too long; whether it took effect is not known: look, then ask again")
	}
	s.log.ErrorContext(ctx, "request failed", slog.Any("error", err))
	return newProblem(http.StatusInternalServerError, "internal",
		"the portal failed; whether the request took effect is not known: look, then ask again")
}

func newProblem(status int, code, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{
		Type: client.ProblemPrefix + code, Title: http.StatusText(status), Status: status, Detail: detail,
	}
}

// writeProblem answers a request that does not reach an operation.
func (s *server) writeProblem(w http.ResponseWriter, p *huma.ErrorModel) {
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="livemend portal"`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.log.Debug("the caller went away before its answer", slog.Any("error", err))
	}
}

func (s *server) tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	s.writeProblem(w, newProblem(http.StatusTooManyRequests, "too-many",
		"too many requests; nothing was changed, wait a moment and ask again"))
}

// each converts a list; the result is never nil, because JSON tells null from
// an empty list.
func each[A, B any](list []A, convert func(A) B) []B {
	out := make([]B, len(list))
	for i, item := range list {
		out[i] = convert(item)
	}
	return out
}

func customer(c portal.Customer) client.Customer { return client.Customer{ID: c.ID, Name: c.Name} }

func key(k portal.Key) client.Key {
	return client.Key{
		ID: k.ID, CustomerID: k.Customer, Note: k.Note, ServerLimit: k.ServerLimit, Servers: k.Servers,
		ExpiresAt: k.Expires, Enabled: k.Enabled, CreatedAt: k.Created,
	}
}

func system(s portal.System) client.System {
	flags := strings.Fields(s.Flags)
	if flags == nil {
		flags = []string{}
	}
	return client.System{ID: s.ID, CustomerID: s.Customer, Hostname: s.Hostname, Flags: flags, CreatedAt: s.Created}
}
