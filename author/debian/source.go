package debian

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// dsc is what a source package's description says.
type dsc struct {
	source, version string
	files           []string          // beside it
	hashes          map[string]string // SHA-256 of files, hexadecimal
	packages        []string          // binary packages that may hold the library
	needs           string            // packages that a build for one architecture asks for, as they are written
	sum             string            // SHA-256 of the file, hexadecimal
}

// parseDSC reads a .dsc file.
func parseDSC(text string) (*dsc, error) {
	for _, p := range paragraphs(text) {
		if p.field("Source") == "" {
			continue // the front of a signature
		}
		d := &dsc{source: p.field("Source"), version: p.field("Version"), hashes: map[string]string{}}
		for line := range strings.Lines(p.field("Checksums-Sha256")) {
			if parts := strings.Fields(line); len(parts) == 3 {
				d.hashes[parts[2]] = parts[0]
			}
		}
		for line := range strings.Lines(p.field("Files")) {
			if parts := strings.Fields(line); len(parts) == 3 {
				if strings.ContainsRune(parts[2], '/') {
					return nil, fmt.Errorf("the source package names a file %q", parts[2])
				}
				d.files = append(d.files, parts[2])
			}
		}
		d.packages = candidates(p.field("Package-List"))
		d.needs = p.field("Build-Depends") + ", " + p.field("Build-Depends-Arch")
		if d.version == "" || len(d.files) == 0 {
			return nil, errors.New("the source package's description names no version or no files")
		}
		return d, nil
	}
	return nil, errors.New("this is no description of a source package")
}

// verify compares the files, which lie in dir, with their hashes.
func (d *dsc) verify(dir string) error {
	for _, name := range d.files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if sumOf(data) != d.hashes[name] {
			return fmt.Errorf("%s is not the file that the source package describes", name)
		}
	}
	return nil
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

// series is the list of a source package's patches, in the order in which they
// are applied.
type series struct{ lines []string }

func parseSeries(text string) series {
	var s series
	for line := range strings.Lines(text) {
		s.lines = append(s.lines, strings.TrimRight(line, "\r\n"))
	}
	return s
}

// patchIn returns the name of the patch in a line of a series, or nothing.
func patchIn(line string) string {
	line, _, _ = strings.Cut(line, " #")
	parts := strings.Fields(line)
	if len(parts) == 0 || parts[0][0] == '#' {
		return ""
	}
	return parts[0]
}

// names returns the patches of the series.
func (s series) names() []string {
	var names []string
	for _, line := range s.lines {
		if name := patchIn(line); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// find returns the lines of the named patches, in the order of the series.
func (s series) find(fixes []string) (at []int, err error) {
	missing := map[string]bool{}
	for _, f := range fixes {
		missing[patchName(f)] = true
	}
	for i, line := range s.lines {
		if name := patchIn(line); name != "" && missing[name] {
			at = append(at, i)
			delete(missing, name)
		}
	}
	if len(missing) > 0 {
		names := s.names()
		return nil, fmt.Errorf("debian/patches/series of this version does not name %s; it ends with %s",
			strings.Join(slices.Sorted(maps.Keys(missing)), ", "), strings.Join(names[max(0, len(names)-6):], ", "))
	}
	return at, nil
}

// patchName cuts the folder of patches off the name of one.
func patchName(text string) string { return strings.TrimPrefix(path.Clean(text), "debian/patches/") }

// states returns the lines of the fixes, and where the series may end for the
// state before them: in front of the first fix, then one patch earlier each time,
// at most limit places. Without fixes they are all patches behind that place.
func (s series) states(at []int, limit int) (fixes []string, ends []int) {
	end := len(s.lines)
	if len(at) > 0 {
		end = at[0] + 1
	}
	for len(ends) < limit {
		for end--; end >= 0 && patchIn(s.lines[end]) == ""; end-- {
		}
		if end < 0 {
			break
		}
		ends = append(ends, end)
	}
	for _, i := range at {
		fixes = append(fixes, s.lines[i])
	}
	return fixes, ends
}

// has reports whether the series has the patch.
func (s series) has(name string) bool { return slices.Contains(s.names(), name) }

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
