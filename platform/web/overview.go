package web

import (
	"slices"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/platform"
)

// overviewView is what the first page shows.
type overviewView struct {
	platform.Overview
	now     time.Time
	operate bool
	admin   bool
}

// open is the number of places that are vulnerable now, with or without a live patch.
func (o overviewView) open() int64 {
	return o.States[coverage.Vulnerable] + o.States[coverage.Available]
}

// severityParts are the open places by severity, worst first.
func (o overviewView) severityParts() []part {
	hues := map[string]string{"critical": "red", "high": "red", "medium": "amber", "low": "grey", "": "grey"}
	var parts []part
	for _, severity := range severities {
		parts = append(parts, part{int(o.Severities[severity]), hues[severity], severityWord(severity)})
	}
	return parts
}

// most is the largest of the severity parts: the full length of their bars.
func (o overviewView) most() int {
	most := 0
	for _, p := range o.severityParts() {
		most = max(most, p.count)
	}
	return most
}

func (s *site) overview(v *visit) error {
	numbers, err := s.svc.Overview(v.context(), v.who)
	if err != nil {
		return err
	}
	o := overviewView{Overview: numbers, now: s.now(), operate: v.can(access.Operator), admin: v.can(access.Admin)}
	return s.show(v, "Overview", "/", overviewPage(o))
}

// severities are the ratings, worst first; the last is "not rated".
var severities = []string{"critical", "high", "medium", "low", ""}

func severityWord(s string) string {
	if s == "" {
		return "not rated"
	}
	return s
}

func severityClass(s string) string {
	if slices.Contains(severities, s) {
		return s
	}
	return ""
}
