package web

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// exact is a time in full, always with its zone.
func exact(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// relative says how long before now t was, or how long after.
func relative(now, t time.Time) string {
	d := now.Sub(t)
	if d < 0 {
		return "in " + span(-d)
	}
	if d < 5*time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

// span is a duration in its largest whole unit.
func span(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 2*day:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	default:
		return strconv.Itoa(int(d/day)) + " days"
	}
}

// stopTime is how long a process stood still, in microseconds or milliseconds.
func stopTime(ns int64) string {
	if ns < int64(10*time.Millisecond) {
		return thousands(ns/1000) + " µs"
	}
	return thousands(ns/1_000_000) + " ms"
}

// shorten cuts s to at most n runes, the last of them an ellipsis.
func shorten(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// thousands writes n with commas between groups of three digits.
func thousands[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// counted is a number with its noun: "1 server", "3 servers".
func counted[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10_000:
		return thousands(n) + " B"
	case n < 10_000_000:
		return thousands(n/1000) + " kB"
	default:
		return thousands(n/1_000_000) + " MB"
	}
}

// base is the last element of a path: of a library, its file name.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// address puts path and query together, leaving out empty values.
func address(path string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Add(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// barWidth is the length of a bar in the units of its drawing.
const barWidth = 1000

// slice is one coloured piece of a bar.
type slice struct {
	hue         string
	from, width int
}

// layBar lays the parts side by side. A part that is not empty is always wide
// enough to be seen.
func layBar(parts []part) []slice {
	total := 0
	for _, p := range parts {
		total += p.count
	}
	if total == 0 {
		return nil
	}
	const least = 6
	var out []slice
	room, weight := barWidth, total
	for _, p := range parts {
		if p.count > 0 && p.count*barWidth/total < least {
			room -= least
			weight -= p.count
		}
	}
	at := 0
	for _, p := range parts {
		if p.count <= 0 {
			continue
		}
		width := least
		if p.count*barWidth/total >= least {
			width = p.count * room / weight
		}
		out = append(out, slice{hue: p.hue, from: at, width: width})
		at += width
	}
	out[len(out)-1].width = barWidth - out[len(out)-1].from
	return out
}

// inWords is a bar for those who do not see it.
func inWords(parts []part) string {
	var words []string
	for _, p := range parts {
		if p.count > 0 {
			words = append(words, thousands(p.count)+" "+p.word)
		}
	}
	if len(words) == 0 {
		return "nothing yet"
	}
	return strings.Join(words, ", ")
}

// places is the noun for rows of the coverage table.
func places(n int64) string {
	if n == 1 {
		return "place"
	}
	return "places"
}

// verb agrees with a number.
func verb(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// jobAddress is the page of a job.
func jobAddress(id int64) string { return "/jobs/" + strconv.FormatInt(id, 10) }

// serverAddress is the page of a server.
func serverAddress(id string) string { return "/servers/" + url.PathEscape(id) }

// cveAddress is the page of a vulnerability.
func cveAddress(id string) string { return "/vulnerabilities/" + url.PathEscape(id) }

// patchAddress is the page of a live patch.
func patchAddress(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "/patches/" + strings.Join(parts, "/")
}

// orDash is s, or a dash where there is nothing to show.
func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// maxNamed bounds the names that a sentence lists.
const maxNamed = 5

// list puts names into a sentence.
func list(names []string) string {
	switch n := len(names); {
	case n == 0:
		return "nothing"
	case n == 1:
		return names[0]
	case n > maxNamed:
		return strings.Join(names[:maxNamed-1], ", ") + " and " + thousands(n-maxNamed+1) + " more"
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// stagesInWords says how many servers each stage has.
func stagesInWords(stages []int) string {
	var words []string
	for i, n := range stages {
		if i == 0 {
			words = append(words, counted(n, "server", "servers")+" first")
		} else {
			words = append(words, "then "+thousands(n))
		}
	}
	if len(words) == 0 {
		return orDash("")
	}
	return strings.Join(words, ", ")
}

// orText is s, or other where s is empty.
func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// stageName is what a stage of a job is called.
func stageName(i, of int) string {
	if of == 1 {
		return "All at once"
	}
	return "Stage " + strconv.Itoa(i+1) + " of " + strconv.Itoa(of)
}

// allServers names every server of the organisation.
func allServers(n int64) string {
	if n == 1 {
		return "the one server"
	}
	return "all " + thousands(n) + " servers"
}

// runningJobs names the jobs that run.
func runningJobs(n int) string {
	if n == 1 {
		return "the job that runs"
	}
	return "the " + thousands(n) + " jobs that run"
}

// sentence begins s with a capital letter.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	first, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[n:]
}
