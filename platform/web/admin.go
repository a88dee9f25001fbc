package web

import (
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

func (s *site) audit(v *visit) error {
	l := listed(v)
	found, err := s.svc.Audit(v.context(), v.who, piece(v))
	if err != nil {
		return err
	}
	return s.show(v, "Audit", "/audit", auditPage(auditView{entries: found.Items, now: s.now(), pager: pager{
		list: l, shown: len(found.Items), total: found.Total, next: found.Next,
		further: v.r.FormValue("after") != "", one: "entry", many: "entries",
	}}))
}

// auditView is the record of who did what.
type auditView struct {
	entries []audit.Entry
	pager   pager
	now     time.Time
}

// settingsView is the platform's own page.
type settingsView struct {
	platform.Settings
	users        []platform.User
	tokens       []platform.APIToken
	createdUser  *platform.CreatedUser     // shown this once
	createdToken *platform.CreatedAPIToken // shown this once
	me           access.Subject
	now          time.Time
	admin        bool
}

var roles = []access.Role{access.Viewer, access.Operator, access.Admin}

// roleWord says what a role may do.
func roleWord(r access.Role) string {
	switch r {
	case access.Viewer:
		return "viewer: sees everything"
	case access.Operator:
		return "operator: scans and live-patches too"
	case access.Admin:
		return "admin: keys, people and settings too"
	}
	return string(r)
}

func (s *site) settings(v *visit) error {
	return s.settingsWith(v, settingsView{})
}

func (s *site) settingsWith(v *visit, view settingsView) error {
	view.me, view.now, view.admin = v.who, s.now(), v.can(access.Admin)
	var err error
	if view.Settings, err = s.svc.Settings(v.context(), v.who); err != nil {
		return err
	}
	if view.admin {
		if view.users, err = s.svc.Users(v.context(), v.who); err != nil {
			return err
		}
		if view.tokens, err = s.svc.APITokens(v.context(), v.who); err != nil {
			return err
		}
	}
	return s.show(v, "Settings", "/settings", settingsPage(view))
}

// createUser answers with the one-time password: it is shown this once.
func (s *site) createUser(v *visit) error {
	created, err := s.svc.CreateUser(v.context(), v.who, platform.NewUser{Name: v.text("name"), Role: v.text("role")})
	if err != nil {
		return err
	}
	return s.settingsWith(v, settingsView{createdUser: &created})
}

func (s *site) changeUser(v *visit) error {
	disable := v.text("do") == "disable"
	if err := s.svc.SetUserDisabled(v.context(), v.who, v.r.PathValue("id"), disable); err != nil {
		return err
	}
	if disable {
		s.say(v.w, "good", "The account is disabled and signed out everywhere. Enable it to undo.")
	} else {
		s.say(v.w, "good", "The account is enabled again.")
	}
	s.sendTo(v, "/settings")
	return nil
}

// createAPIToken answers with the token itself: it is shown this once.
func (s *site) createAPIToken(v *visit) error {
	created, err := s.svc.CreateAPIToken(v.context(), v.who, platform.NewAPIToken{Name: v.text("name"), Role: v.text("role")})
	if err != nil {
		return err
	}
	return s.settingsWith(v, settingsView{createdToken: &created})
}

func (s *site) deleteAPIToken(v *visit) error {
	if err := s.svc.DeleteAPIToken(v.context(), v.who, v.r.PathValue("id")); err != nil {
		return err
	}
	s.say(v.w, "good", "The API token is deleted. Programs that use it are refused from now on.")
	s.sendTo(v, "/settings")
	return nil
}

// searchView is what fits a word, of each kind.
type searchView struct {
	query           string
	servers         fleet.Page[platform.ServerSummary]
	vulnerabilities fleet.Page[platform.Vulnerability]
	patches         []fleet.Patch
	patchCount      int
}

// maxHits bounds the hits of each kind that a search shows; the rest is a link away.
const maxHits = 5

func (s *site) search(v *visit) error {
	view := searchView{query: v.text("q")}
	if view.query == "" {
		return s.show(v, "Search", "/search", searchPage(view))
	}
	first := platform.List{Limit: maxHits}
	var err error
	if view.servers, err = s.svc.Servers(v.context(), v.who, platform.ServerFilter{List: first, Query: view.query}); err != nil {
		return err
	}
	if view.vulnerabilities, err = s.svc.Vulnerabilities(v.context(), v.who, platform.CoverageFilter{List: first, Query: view.query}); err != nil {
		return err
	}
	catalogue, err := s.svc.Catalogue(v.context(), v.who)
	if err != nil {
		return err
	}
	hits, n := patchesView{Catalogue: catalogue, query: view.query}.items()
	view.patches, view.patchCount = hits[:min(len(hits), maxHits)], n
	return s.show(v, "Search", "/search", searchPage(view))
}
