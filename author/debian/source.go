package debian

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// dsc is what a source package's description says.
type dsc struct {
	source, version string
	files           []string // beside it
	packages        []string // binary packages that may hold the library
	sum             string   // SHA-256 of the file, hexadecimal
}

// parseDSC reads a .dsc file.
func parseDSC(text string) (*dsc, error) {
	for _, p := range paragraphs(text) {
		if p.field("Source") == "" {
			continue // the front of a signature
		}
		d := &dsc{source: p.field("Source"), version: p.field("Version")}
		for line := range strings.Lines(p.field("Files")) {
			if parts := strings.Fields(line); len(parts) == 3 {
				if strings.ContainsRune(parts[2], '/') {
					return nil, fmt.Errorf("the source package names a file %q", parts[2])
				}
				d.files = append(d.files, parts[2])
			}
		}
		d.packages = candidates(p.field("Package-List"))
		if d.version == "" || len(d.files) == 0 {
			return nil, errors.New("the source package's description names no version or no files")
		}
		return d, nil
	}
	return nil, errors.New("this is no description of a source package")
}

// candidates lists the binary packages that are made for this architecture and
// may hold a library or program, the likeliest first.
func candidates(list string) []string {
	var likely, other []string
	for line := range strings.Lines(list) {
		parts := strings.Fields(line)
		if len(parts) < 4 || parts[1] != "deb" || slices.Contains(parts[4:], "arch=all") {
			continue
		}
		name, section := parts[0], parts[2]
		switch {
		case !packagePattern.MatchString(name), section == "doc", section == "debug", strings.HasSuffix(name, "-dbg"):
		case section == "libs" || strings.HasPrefix(name, "lib") && section != "libdevel":
			likely = append(likely, name)
		default:
			other = append(other, name)
		}
	}
	return append(likely, other...)
}

// dscName is the name of the file that describes a source package.
func dscName(pkg, version string) string { return pkg + "_" + noEpoch(version) + ".dsc" }

func noEpoch(version string) string {
	if _, rest, found := strings.Cut(version, ":"); found {
		return rest
	}
	return version
}

// treeName is the folder that a source package is built in on the
// distribution's builders; it leaks into some binaries.
func treeName(pkg, version string) string {
	upstream := noEpoch(version)
	if i := strings.LastIndexByte(upstream, '-'); i > 0 {
		upstream = upstream[:i]
	}
	return pkg + "-" + upstream
}

// series is the list of a source package's patches. Two states are cut from it.
type series struct{ lines []string }

func parseSeries(text string) series {
	var s series
	for line := range strings.Lines(text) {
		s.lines = append(s.lines, strings.TrimRight(line, "\r\n"))
	}
	return s
}

// patch returns the name of the patch in line i, or nothing.
func (s series) patch(i int) string {
	line, _, _ := strings.Cut(s.lines[i], " #")
	parts := strings.Fields(line)
	if len(parts) == 0 || parts[0][0] == '#' {
		return ""
	}
	return parts[0]
}

// last returns the names of the last patches, at most n.
func (s series) last(n int) []string {
	var names []string
	for i := len(s.lines) - 1; i >= 0 && len(names) < n; i-- {
		if name := s.patch(i); name != "" {
			names = append(names, name)
		}
	}
	slices.Reverse(names)
	return names
}

// cut returns the series up to the fixes, and up to and with them. The fixes
// must follow one another: a patch between them would come along unasked.
func (s series) cut(fixes []string) (before, after string, err error) {
	wanted := map[string]bool{}
	for _, f := range fixes {
		wanted[strings.TrimPrefix(path.Clean(f), "debian/patches/")] = true
	}
	first, last := -1, -1
	var between []string
	left := len(wanted)
	for i := range s.lines {
		name := s.patch(i)
		switch {
		case name == "" || left == 0:
		case wanted[name]:
			if first < 0 {
				first = i
			}
			last = i
			left--
		case first >= 0:
			between = append(between, name)
		}
	}
	if left > 0 {
		for i := range s.lines {
			delete(wanted, s.patch(i))
		}
		missing := slices.Sorted(func(yield func(string) bool) {
			for name := range wanted {
				if !yield(name) {
					return
				}
			}
		})
		return "", "", fmt.Errorf("debian/patches/series of this version does not name %s; it ends with %s", strings.Join(missing, ", "), strings.Join(s.last(6), ", "))
	}
	if len(between) > 0 {
		return "", "", fmt.Errorf("%s lies between the fixes; name it too, or build one patch per fix", strings.Join(between, ", "))
	}
	return joined(s.lines[:first]), joined(s.lines[:last+1]), nil
}

func joined(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// trimChangelog drops what is newer than version, so that a build of a newer
// source without its last patches has the old date and number.
func trimChangelog(text, version string) (string, error) {
	at := 0
	for line := range strings.Lines(text) {
		if name, rest, found := strings.Cut(line, " ("); found && packagePattern.MatchString(name) {
			if v, _, closed := strings.Cut(rest, ")"); closed && v == version {
				return text[at:], nil
			}
		}
		at += len(line)
	}
	return "", fmt.Errorf("debian/changelog has no entry for %s", version)
}
