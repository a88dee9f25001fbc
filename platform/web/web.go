// Package web is the management platform's pages: HTML made on the server, with
// a little comfort in the browser. Every page works without JavaScript.
//
// It shows what the use cases of package platform return and sends people's
// orders to them. It must not hold rules of the product, reach the store or the
// portal, or decide who may do what: the service does.
package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
)

// Options are what the pages need to know of their surroundings.
type Options struct {
	Logger *slog.Logger     // errors with their id; nil = slog.Default
	Secure bool             // the pages are reached over HTTPS: cookies are for HTTPS only
	Now    func() time.Time // nil = time.Now
}

// Limits on what a browser may send.
const (
	maxForm   = 1 << 20 // bytes of a form without a file
	maxPicked = 2000    // rows picked in one form
	maxText   = 200     // bytes of a filter or search text
)

// site is the pages' handler.
type site struct {
	svc    *platform.Service
	assets *assets
	log    *slog.Logger
	secure bool
	now    func() time.Time
}

// New returns the handler of all pages, to be mounted at the root. It answers
// every path; those that it does not know get a page that says so.
func New(svc *platform.Service, opts Options) (http.Handler, error) {
	if svc == nil {
		return nil, errors.New("pages need a service to show")
	}
	files, err := newAssets(embedded)
	if err != nil {
		return nil, err
	}
	s := &site{svc: svc, assets: files, log: opts.Logger, secure: opts.Secure, now: opts.Now}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(s.crossOrigin))
	return s.headers(protection.Handler(s.routes())), nil
}

func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", s.assets)
	mux.HandleFunc("GET /sign-in", s.signInPage)
	mux.HandleFunc("POST /sign-in", s.signIn)
	mux.HandleFunc("POST /sign-out", s.signOut)
	mux.HandleFunc("GET /password", s.passwordPage)
	mux.HandleFunc("POST /password", s.changePassword)
	mux.HandleFunc("POST /theme", s.setTheme)

	see := func(pattern string, show view) { mux.Handle(pattern, s.signedIn(show)) }
	see("GET /{$}", s.overview)
	see("GET /search", s.search)
	see("GET /vulnerabilities", s.vulnerabilities)
	see("GET /vulnerabilities/{cve}", s.vulnerability)
	see("GET /livepatch", s.plan)
	see("POST /livepatch", s.livePatchFound)
	see("GET /servers", s.servers)
	see("GET /servers/{id}", s.server)
	see("POST /servers/{id}/remove", s.removeServer)
	see("GET /servers/add", s.addServerPage)
	see("POST /servers/add", s.addServer)
	see("POST /enrolments/{id}", s.decideEnrolment)
	see("GET /patches", s.patches)
	see("POST /patches/refresh", s.refreshCatalogue)
	see("GET /patches/{path...}", s.patch)
	see("POST /patches/block", s.blockPatch)
	see("POST /revert", s.revert)
	see("GET /jobs", s.jobs)
	see("GET /jobs/{id}", s.job)
	see("GET /jobs/{id}/stream", s.jobStream)
	see("POST /jobs/{id}/stop", s.stopJob)
	see("POST /jobs/stop", s.stopEveryJob)
	see("GET /scans", s.scans)
	see("POST /scans", s.scan)
	see("POST /scans/upload", s.uploadScan)
	see("GET /keys", s.keys)
	see("POST /keys", s.createKey)
	see("POST /keys/activate", s.activate)
	see("POST /keys/{id}", s.changeKey)
	see("GET /audit", s.audit)
	see("GET /settings", s.settings)
	see("POST /settings/users", s.createUser)
	see("POST /settings/users/{id}", s.changeUser)
	see("POST /settings/tokens", s.createAPIToken)
	see("POST /settings/tokens/{id}/delete", s.deleteAPIToken)
	// Answers that are shown once have no address to come back to.
	see("GET /keys/activate", s.leadTo("/keys"))
	see("GET /settings/users", s.leadTo("/settings"))
	see("GET /settings/tokens", s.leadTo("/settings"))
	see("/", s.unknown)
	return mux
}

// headers sets what protects every answer. Scripts and styles come from files
// of this origin only, so an injected one does not run.
func (s *site) headers(next http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if s.secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// visit is one request of a signed-in person.
type visit struct {
	w      http.ResponseWriter
	r      *http.Request
	who    access.Subject
	secret string // of the session, to look again while a stream is open
}

func (v *visit) context() context.Context { return v.r.Context() }

// text is a value of the address or the form, cut to a sane length.
func (v *visit) text(name string) string { return shorten(v.r.FormValue(name), maxText) }

// can reports whether the person's role allows what role allows. It decides
// which buttons are drawn; the service decides what is done.
func (v *visit) can(role access.Role) bool { return v.who.Require(role) == nil }

// view answers one request, or returns why it cannot.
type view func(v *visit) error

// signedIn finds out who asks, and sends those who must sign in or set a
// password of their own there first.
func (s *site) signedIn(show view) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{w: w, r: r}
		cookie, err := r.Cookie(platform.SessionCookie)
		if err != nil {
			s.sendTo(v, signInAddress(r))
			return
		}
		v.secret = cookie.Value
		v.who, err = s.svc.Session(r.Context(), cookie.Value)
		switch {
		case errors.Is(err, access.ErrCredentials):
			s.sendTo(v, signInAddress(r))
			return
		case err != nil:
			s.fail(v, err)
			return
		case v.who.MustChange:
			s.sendTo(v, "/password")
			return
		}
		if r.Method != http.MethodGet && r.URL.Path != "/scans/upload" {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		}
		if err := show(v); err != nil {
			s.fail(v, err)
		}
	})
}

// sendTo leads the browser to another page, also when only a piece of a page
// was asked for.
func (s *site) sendTo(v *visit, to string) {
	if v.r.Header.Get("HX-Request") != "" {
		v.w.Header().Set("HX-Redirect", to)
		v.w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
}

// leadTo answers with the way to another page.
func (s *site) leadTo(to string) view {
	return func(v *visit) error {
		s.sendTo(v, to)
		return nil
	}
}
