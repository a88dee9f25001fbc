// Package api is the platform's REST interface, with its description (OpenAPI
// 3.1) at /api/v1/openapi.json.
//
// It translates: requests to use cases of package platform, answers and errors
// back. It must not decide anything itself: who may do what is the service's
// business, and the organisation comes from the session or token.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
)

// Prefix is where the interface is mounted.
const Prefix = "/api/v1"

// Limits on request bodies, in bytes.
const (
	maxBody    = 1 << 20
	maxUpdates = 32 << 20
)

// Options say how to serve.
type Options struct {
	Log    *slog.Logger
	Secure bool // reached over HTTPS: the session's cookie is for HTTPS only
}

// New returns the handler of everything under Prefix.
func New(service *platform.Service, o Options) http.Handler {
	s := &server{service: service, log: o.Log, secure: o.Secure}
	routes := http.NewServeMux()
	config := huma.DefaultConfig("Livemend platform", "1")
	config.CreateHooks = nil // no links to schemas inside the answers
	config.SchemasPath = ""
	config.DocsPath = "" // the usual page loads scripts of strangers
	config.OpenAPIPath = Prefix + "/openapi"
	config.Info.Description = "Servers, findings, live patches and jobs of one organisation, which is known by the session or token."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", Description: "an API token"},
		"session": {Type: "apiKey", In: "cookie", Name: platform.SessionCookie, Description: "made by POST " + Prefix + "/session"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	s.api = humago.New(routes, config)
	s.register()
	routes.HandleFunc("GET "+Prefix+"/events/stream", s.stream)
	// A browser adds the cookie by itself, also for a stranger's page; a token is
	// only sent by who has it.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.write(w, r, problem(http.StatusForbidden, "cross-origin", "The request comes from another site's page. Nothing was changed."))
	}))
	return protection.Handler(s.known(routes))
}

type server struct {
	service *platform.Service
	api     huma.API
	log     *slog.Logger
	secure  bool
}

// caller is who asks and from where.
type caller struct {
	subject access.Subject
	known   bool
	address string
	session string // its secret, "" for a token
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller) // the zero caller is nobody
	return c
}

// known finds out who asks. Requests without a credential go on as nobody's;
// one with a wrong credential ends here.
func (s *server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		c, err := s.identify(r)
		if err != nil {
			s.write(w, r, s.refusal(r.Context(), err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify finds out who asks; nobody is no error, a wrong token is.
func (s *server) identify(r *http.Request) (c caller, err error) {
	c.address = address(r)
	if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		c.subject, err = s.service.Bearer(r.Context(), strings.TrimSpace(text))
		c.known = err == nil
	} else if cookie, failed := r.Cookie(platform.SessionCookie); failed == nil {
		c.session = cookie.Value
		c.subject, err = s.service.Session(r.Context(), cookie.Value)
		c.known = err == nil
		if errors.Is(err, access.ErrCredentials) {
			err = nil // a session that ended must not keep anybody from signing in
		}
	}
	return c, err
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
