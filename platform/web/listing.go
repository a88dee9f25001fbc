package web

import (
	"net/url"
	"strings"

	"livemend.dev/livemend/platform"
)

// listing is the address of a list with its filters: the filters are the
// address, so that a list can be kept and sent to somebody else.
type listing struct {
	path   string
	values url.Values
}

// listed takes the filters with the given names from the address.
func listed(v *visit, names ...string) listing {
	l := listing{path: v.r.URL.Path, values: url.Values{}}
	for _, name := range names {
		if value := v.text(name); value != "" {
			l.values.Set(name, value)
		}
	}
	return l
}

// get is the value of one filter.
func (l listing) get(name string) string { return l.values.Get(name) }

// narrowed reports whether any filter is set.
func (l listing) narrowed() bool { return len(l.values) > 0 }

// with is the same list from its start, with one filter changed.
func (l listing) with(name, value string) string {
	pairs := []string{name, value}
	for other := range l.values {
		if other != name {
			pairs = append(pairs, other, l.values.Get(other))
		}
	}
	return address(l.path, pairs...)
}

// after is the next piece of the same list.
func (l listing) after(next string) string { return l.with("after", next) }

// piece is which part of a list the address asks for.
func piece(v *visit) platform.List { return platform.List{After: v.r.FormValue("after")} }

// pager is what stands below a list.
type pager struct {
	list    listing
	shown   int
	total   int64
	next    string
	further bool // this is not the first piece
	one     string
	many    string
}

func (p pager) words() string {
	if int64(p.shown) == p.total {
		return counted(p.total, p.one, p.many)
	}
	return thousands(p.shown) + " of " + counted(p.total, p.one, p.many)
}

// contains reports whether text holds part, whatever the case.
func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}
