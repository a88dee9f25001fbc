package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/a-h/templ"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
)

// render writes a whole page, or the page for a failure when making it fails:
// half a page is never sent.
func (s *site) render(w http.ResponseWriter, r *http.Request, status int, body templ.Component) {
	var out bytes.Buffer
	if err := body.Render(r.Context(), &out); err != nil {
		s.log.ErrorContext(r.Context(), "render a page", "path", r.URL.Path, "err", err)
		http.Error(w, "This page could not be made. Nothing was changed. Try again.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := out.WriteTo(w); err != nil {
		s.log.DebugContext(r.Context(), "the browser went away", "path", r.URL.Path, "err", err)
	}
}

// frame collects what the frame of every signed-in page shows.
func (s *site) frame(v *visit, title, section string) (page, error) {
	ctx := v.context()
	about, err := s.svc.Settings(ctx, v.who)
	if err != nil {
		return page{}, err
	}
	running, err := s.svc.Jobs(ctx, v.who, platform.JobFilter{List: platform.List{Limit: 1}, State: rollout.JobRunning})
	if err != nil {
		return page{}, err
	}
	pending, err := s.svc.Enrolments(ctx, v.who, fleet.EnrolmentPending)
	if err != nil {
		return page{}, err
	}
	return page{
		assets: s.assets, title: title, section: section,
		org: about.Organisation.Name, person: v.who.Name, role: string(v.who.Role),
		theme: theme(v.r), path: v.r.URL.RequestURI(),
		operate: v.can(access.Operator), running: int(running.Total), pending: len(pending), both: about.BothInOne,
	}, nil
}

// show sends a page inside the frame.
func (s *site) show(v *visit, title, section string, body templ.Component) error {
	return s.showWith(v, http.StatusOK, title, section, body)
}

func (s *site) showWith(v *visit, status int, title, section string, body templ.Component) error {
	p, err := s.frame(v, title, section)
	if err != nil {
		return err
	}
	p.flash = s.said(v.w, v.r)
	if section == "/search" {
		p.query = v.text("q")
	}
	s.render(v.w, v.r, status, framed(p, body))
	return nil
}

// framed puts a body into the layout.
func framed(p page, body templ.Component) templ.Component {
	return templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		return layout(p).Render(templ.WithChildren(ctx, body), w)
	})
}

// wrong is what the page for a failure says.
type wrong struct {
	Title  string // what happened
	Safe   string // what is safe
	Next   string // what to do
	ID     string // for the log; empty = nothing was logged
	Status int
}

// fail answers a request that could not be done. What a person can mend is said
// on the page they came from; the rest gets a page of its own, and an id under
// which the log has the detail.
func (s *site) fail(v *visit, err error) {
	if errors.Is(err, context.Canceled) && v.context().Err() != nil {
		return // the browser went away
	}
	var problem *platform.Problem
	mendable := errors.As(err, &problem)
	if v.r.Method == http.MethodPost && mendable && v.who.Name != "" {
		s.say(v.w, "bad", problem.Text)
		s.sendTo(v, origin(v.r))
		return
	}
	about := s.explain(err, problem)
	if about.Status >= http.StatusInternalServerError {
		about.ID = newID()
		s.log.ErrorContext(v.context(), "a page failed", "id", about.ID, "method", v.r.Method, "path", v.r.URL.Path, "err", err)
	}
	if v.who.Name != "" && !v.who.MustChange {
		if p, frameErr := s.frame(v, about.Title, ""); frameErr == nil {
			s.render(v.w, v.r, about.Status, framed(p, wrongBody(about)))
			return
		}
	}
	s.render(v.w, v.r, about.Status, wrongPage(s.assets, theme(v.r), about))
}

// explain puts an error into words for people.
func (s *site) explain(err error, problem *platform.Problem) wrong {
	var about wrong
	switch {
	case errors.Is(err, platform.ErrNotFound):
		about = wrong{"This is not here", "Nothing was changed. It may have been removed, or the address may be wrong.", "Go back, or search for it above.", "", http.StatusNotFound}
	case errors.Is(err, access.ErrForbidden):
		about = wrong{"Your role does not allow this", "Nothing was changed.", "Ask an administrator of your organisation to do it, or to change your role.", "", http.StatusForbidden}
	case errors.Is(err, platform.ErrInput):
		about = wrong{"This request is not valid", "Nothing was changed.", "Go back, correct it and try again.", "", http.StatusUnprocessableEntity}
	case errors.Is(err, platform.ErrConflict):
		about = wrong{"This does not fit what is true now", "Nothing was changed.", "Look at the present state, then try again.", "", http.StatusConflict}
	case errors.Is(err, platform.ErrPortal):
		about = wrong{"The portal did not answer as it should", "What was verified before is still in use. Servers are not affected.", "Try again in a minute. If it stays, look at the portal and at the log.", "", http.StatusBadGateway}
	default:
		return wrong{"Something went wrong here", "Servers and their live patches are not affected. Jobs go on by themselves.", "Try again. If it happens again, give the id below to whoever looks after this platform.", "", http.StatusInternalServerError}
	}
	if problem != nil {
		about.Safe = problem.Text
	}
	return about
}

// origin is the page of this site that a form was sent from.
func origin(r *http.Request) string {
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host {
		return "/"
	}
	return local(from.RequestURI())
}

func newID() string {
	var raw [6]byte
	rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}

// crossOrigin answers a form that another site sent in a person's name.
func (s *site) crossOrigin(w http.ResponseWriter, r *http.Request) {
	s.log.WarnContext(r.Context(), "refused a form of another origin", "path", r.URL.Path, "origin", r.Header.Get("Origin"))
	s.render(w, r, http.StatusForbidden, wrongPage(s.assets, theme(r), wrong{
		Title: "This form came from another site", Safe: "Nothing was changed.",
		Next: "Open the platform's own pages and try there.", Status: http.StatusForbidden,
	}))
}

func (s *site) unknown(*visit) error { return platform.ErrNotFound }
