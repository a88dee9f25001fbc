package web

import (
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// patchesView is the catalogue.
type patchesView struct {
	platform.Catalogue
	tab     string
	query   string
	updates fleet.Page[fleet.Update]
	pager   pager
	now     time.Time
	operate bool
}

// items are the live patches that match the search, and how many do.
func (c patchesView) items() ([]fleet.Patch, int) {
	var out []fleet.Patch
	n := 0
	for _, p := range c.Items {
		if c.query != "" && !patchFits(p, c.query) {
			continue
		}
		if n++; n <= maxShown {
			out = append(out, p)
		}
	}
	return out, n
}

func patchFits(p fleet.Patch, query string) bool {
	if contains(p.ID, query) || contains(p.Library, query) || contains(p.Release, query) || contains(p.BuildID, query) {
		return true
	}
	for _, f := range p.Fixes {
		if contains(f.CVE, query) {
			return true
		}
	}
	return false
}

// patchName is what a live patch is for, in words.
func patchName(p fleet.Patch) string {
	switch {
	case p.Kind == "kernel":
		return "kernel " + p.Release
	case p.Library != "":
		return base(p.Library)
	}
	return p.ID
}

// fixes are the identifiers that a live patch closes.
func fixes(p fleet.Patch) []string {
	var ids []string
	for _, f := range p.Fixes {
		ids = append(ids, f.CVE)
	}
	return ids
}

func (s *site) patches(v *visit) error {
	view := patchesView{tab: v.text("tab"), query: v.text("q"), now: s.now(), operate: v.can(access.Operator)}
	var err error
	if view.Catalogue, err = s.svc.Catalogue(v.context(), v.who); err != nil {
		return err
	}
	if view.updates, err = s.svc.Updates(v.context(), v.who, piece(v)); err != nil {
		return err
	}
	l := listed(v, "tab")
	view.pager = pager{list: l, shown: len(view.updates.Items), total: view.updates.Total, next: view.updates.Next,
		further: v.r.FormValue("after") != "", one: "package update", many: "package updates"}
	return s.show(v, "Patches", "/patches", patchesPage(view))
}

// refreshCatalogue is "Check for available Live Patches".
func (s *site) refreshCatalogue(v *visit) error {
	change, err := s.svc.RefreshCatalogue(v.context(), v.who)
	if err != nil {
		return err
	}
	text := "The catalogue is verified: " + counted(change.Patches, "live patch", "live patches") + ". "
	if len(change.New) == 0 {
		text += "Nothing is new."
	} else {
		var names []string
		for _, p := range change.New {
			names = append(names, patchName(p))
		}
		text += counted(len(change.New), "is new", "are new") + ": " + list(names) + "."
	}
	if len(change.Withdrawn) > 0 {
		text += " Withdrawn: " + counted(len(change.Withdrawn), "live patch", "live patches") + ", never newly applied."
	}
	s.say(v.w, "good", text)
	s.sendTo(v, "/patches")
	return nil
}

// patchView is one live patch.
type patchView struct {
	fleet.Patch
	operate bool
	now     time.Time
}

func (s *site) patch(v *visit) error {
	patch, err := s.svc.Patch(v.context(), v.who, v.r.PathValue("path"))
	if err != nil {
		return err
	}
	return s.show(v, patchName(patch), "/patches", patchPage(patchView{Patch: patch, operate: v.can(access.Operator), now: s.now()}))
}

func (s *site) blockPatch(v *visit) error {
	path, reason := v.text("path"), v.text("reason")
	allow := v.text("do") == "allow"
	if !allow && reason == "" {
		return &platform.Problem{Err: platform.ErrInput, Text: "Say why the patch is blocked. Nothing was changed."}
	}
	if allow {
		reason = ""
	}
	if err := s.svc.BlockPatch(v.context(), v.who, path, reason); err != nil {
		return err
	}
	if allow {
		s.say(v.w, "good", "The live patch is allowed again.")
	} else {
		s.say(v.w, "good", "The live patch is blocked: no job applies it. Where it is applied it stays.")
	}
	s.sendTo(v, patchAddress(path))
	return nil
}

// revert makes a job that takes one live patch off.
func (s *site) revert(v *visit) error {
	servers, err := picked(v, "server")
	if err != nil {
		return err
	}
	job, err := s.svc.CreateRevertJob(v.context(), v.who, platform.RevertRequest{Path: v.text("path"), Servers: servers})
	if err != nil {
		return err
	}
	s.sendTo(v, jobAddress(job.ID))
	return nil
}
