// Package api is the portal's REST interface (OpenAPI 3.1 at
// /api/v1/openapi.json) and the web server of its patch repository (/repo/).
//
// It translates: requests to use cases of package portal, answers and errors
// back. It must not decide anything itself. The types that cross the wire are
// those of package portal/client, the public integration kit.
package api

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/portal"
)

const prefix = "/api/v1"

// Options say how to serve.
type Options struct {
	Log    *slog.Logger
	Now    func() time.Time
	Limits Limits
}

// Limits are token buckets. An address is an IPv4 address or an IPv6 /64.
type Limits struct {
	Address    Rate // all requests of one address
	Credential Rate // requests with one credential
	Unknown    Rate // requests of one address without a known credential
}

// Rate is one token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultLimits let one platform register a large fleet, and a guesser little.
func DefaultLimits() Limits {
	return Limits{
		Address:    Rate{PerSecond: 500, Burst: 1000},
		Credential: Rate{PerSecond: 200, Burst: 400},
		Unknown:    Rate{PerSecond: 1, Burst: 20},
	}
}

// New returns the portal's web server. Repository is the folder of the
// published repository; it is only read.
func New(service *portal.Service, repository *blob.Dir, o Options) http.Handler {
	s := &server{service: service, log: o.Log, now: o.Now}
	routes := http.NewServeMux()
	config := huma.DefaultConfig("Livemend portal", "1")
	config.CreateHooks = nil // no links to schemas inside the answers
	config.SchemasPath = ""
	config.DocsPath = "" // the usual page loads scripts of strangers
	config.OpenAPIPath = prefix + "/openapi"
	config.Info.Description = "Customers, registration keys and systems of one partner, who is known by the credential. " +
		"The patch repository is at /repo/, for any TUF client."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"credential": {Type: "http", Scheme: "bearer", Description: "a partner's or the vendor's credential"},
	}
	config.Security = []map[string][]string{{"credential": {}}}
	s.register(humago.New(routes, config))
	routes.HandleFunc("PUT "+prefix+"/artifacts/{sha256}", s.putArtifact)

	address := newLimiter(o.Limits.Address)
	top := http.NewServeMux()
	top.Handle(prefix+"/", &guard{
		next: routes, server: s,
		credential: newLimiter(o.Limits.Credential), unknown: newLimiter(o.Limits.Unknown),
	})
	top.HandleFunc("GET "+prefix+"/openapi.json", routes.ServeHTTP)
	top.HandleFunc("GET "+prefix+"/openapi.yaml", routes.ServeHTTP)
	top.Handle("GET /repo/{name...}", repositoryFiles{files: repository, server: s})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		if !address.allow(addressOf(r), s.now()) {
			s.tooMany(w)
			return
		}
		top.ServeHTTP(w, r)
	})
}

type server struct {
	service *portal.Service
	log     *slog.Logger
	now     func() time.Time
}
