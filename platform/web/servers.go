package web

import (
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/platform"
)

// maxShown bounds the rows of a list inside a detail page; the rest is a filter away.
const maxShown = 200

// serversView is the list of servers, and the machines that wait to become one.
type serversView struct {
	list    listing
	pager   pager
	items   []platform.ServerSummary
	waiting []fleet.EnrolmentRequest
	now     time.Time
	operate bool
}

func (s *site) servers(v *visit) error {
	list := listed(v, "q", "state", "online")
	found, err := s.svc.Servers(v.context(), v.who, platform.ServerFilter{
		List: piece(v), Query: list.get("q"), State: coverage.State(list.get("state")), Online: list.get("online"),
	})
	if err != nil {
		return err
	}
	waiting, err := s.svc.Enrolments(v.context(), v.who, fleet.EnrolmentPending)
	if err != nil {
		return err
	}
	return s.show(v, "Servers", "/servers", serversPage(serversView{
		list: list, items: found.Items, waiting: waiting, now: s.now(), operate: v.can(access.Operator),
		pager: pager{list: list, shown: len(found.Items), total: found.Total, next: found.Next,
			further: v.r.FormValue("after") != "", one: "server", many: "servers"},
	}))
}

// serverView is one server.
type serverView struct {
	platform.ServerDetail
	tab     string
	query   string
	now     time.Time
	operate bool
	admin   bool
}

// tabs of a server's page: the word in the address, and the word on the page.
var serverTabs = []struct{ key, word string }{
	{"", "Vulnerabilities"},
	{"applied", "Live patches"},
	{"libraries", "Libraries"},
	{"packages", "Packages"},
	{"findings", "Scanner findings"},
	{"tasks", "Tasks"},
	{"events", "Events"},
	{"facts", "Facts"},
}

// count is how many entries a tab has.
func (d serverView) count(tab string) int {
	switch tab {
	case "applied":
		return len(d.Applied)
	case "libraries":
		return len(d.Libraries)
	case "packages":
		return len(d.Packages)
	case "findings":
		return len(d.Findings)
	case "tasks":
		return len(d.Tasks)
	case "events":
		return len(d.Events)
	}
	return len(d.Coverage)
}

func (d serverView) tabAddress(tab string) string {
	return address(serverAddress(d.ID), "tab", tab)
}

// states counts the server's coverage rows.
func (d serverView) states() map[coverage.State]int64 {
	counts := map[coverage.State]int64{}
	for _, row := range d.Coverage {
		counts[row.State]++
	}
	return counts
}

// fixable is how many of its rows a live patch would fix.
func (d serverView) fixable() int64 { return d.states()[coverage.Available] }

// libraries are those that match the filter, and how many do.
func (d serverView) libraries() ([]fleet.Library, int) {
	var out []fleet.Library
	n := 0
	for _, l := range d.Libraries {
		if d.query != "" && !contains(l.Path, d.query) && !contains(l.BuildID, d.query) {
			continue
		}
		if n++; n <= maxShown {
			out = append(out, l)
		}
	}
	return out, n
}

// packages are those that match the filter, and how many do.
func (d serverView) packages() ([]fleet.Package, int) {
	var out []fleet.Package
	n := 0
	for _, p := range d.Packages {
		if d.query != "" && !contains(p.Name, d.query) && !contains(p.Source, d.query) {
			continue
		}
		if n++; n <= maxShown {
			out = append(out, p)
		}
	}
	return out, n
}

// library is the name of the library that an applied patch is for: the mapped
// one with the build-id in the patch's path.
func (d serverView) library(a fleet.Applied) string {
	for _, l := range d.Libraries {
		if l.BuildID != "" && contains(a.Path, l.BuildID) {
			return l.Path
		}
	}
	if isKernel(a.Path) {
		return "kernel " + d.Kernel
	}
	return a.Path
}

// os is the operating system in words.
func (d serverView) os() string {
	if d.OSVersion == "" {
		return d.OS
	}
	return d.OS + " " + d.OSVersion
}

func (s *site) server(v *visit) error {
	detail, err := s.svc.Server(v.context(), v.who, v.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.show(v, detail.Hostname, "/servers", serverPage(serverView{
		ServerDetail: detail, tab: v.text("tab"), query: v.text("q"), now: s.now(),
		operate: v.can(access.Operator), admin: v.can(access.Admin),
	}))
}

func (s *site) removeServer(v *visit) error {
	id := v.r.PathValue("id")
	if err := s.svc.RemoveServer(v.context(), v.who, id); err != nil {
		return err
	}
	s.say(v.w, "good", "Server "+id+" is forgotten here and its licence is free. What is applied on it stays applied.")
	s.sendTo(v, "/servers")
	return nil
}

// addView is the page that adds a server.
type addView struct {
	keys   []fleet.Key
	tokens []fleet.Token
	now    time.Time
	admin  bool
}

// usable are the keys that still enrol servers.
func (a addView) usable() []fleet.Key {
	var out []fleet.Key
	for _, k := range a.keys {
		if k.Enabled && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(a.now)) {
			out = append(out, k)
		}
	}
	return out
}

func (s *site) addServerPage(v *visit) error {
	view := addView{now: s.now(), admin: v.can(access.Admin)}
	var err error
	if view.keys, err = s.svc.Keys(v.context(), v.who); err != nil {
		return err
	}
	if view.tokens, err = s.svc.Tokens(v.context(), v.who); err != nil {
		return err
	}
	return s.show(v, "Add new server", "/servers", addServerPage(view))
}

// addServer answers with the command itself, not with a way to it: the secret
// in it is shown this once.
func (s *site) addServer(v *visit) error {
	install, err := s.svc.AddServer(v.context(), v.who, platform.NewServer{
		Scenario: platform.Scenario(v.text("scenario")), KeyID: v.text("key"), Note: v.text("note"),
	})
	if err != nil {
		return err
	}
	return s.show(v, "Add new server", "/servers", installPage(install, s.now()))
}

func (s *site) decideEnrolment(v *visit) error {
	approve := v.text("answer") == "approve"
	request, err := s.svc.DecideEnrolment(v.context(), v.who, v.r.PathValue("id"), approve)
	if err != nil {
		return err
	}
	if approve {
		s.say(v.w, "good", request.Facts.Hostname+" is approved. It appears in the list when its agent asks again.")
	} else {
		s.say(v.w, "good", request.Facts.Hostname+" is refused. It learns so when it asks again; nothing of it was kept as a server.")
	}
	s.sendTo(v, "/servers")
	return nil
}

// isKernel reports whether a patch is for a kernel.
func isKernel(path string) bool { return strings.HasPrefix(path, string(patch.Kernel)+"/") }

// inForceIn says where on a server a patch is in force.
func inForceIn(a fleet.Applied) string {
	switch {
	case !isKernel(a.Path):
		return counted(a.Processes, "process", "processes")
	case a.Processes == 0:
		return "a kernel that is not running now"
	}
	return "the running kernel"
}

// whatOf names what a patch was taken off.
func whatOf(path string) string {
	if isKernel(path) {
		return "the kernel"
	}
	return "every process"
}
