package debian

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// trimmedFolder keeps patches without what they change of tests.
const trimmedFolder = "trimmed"

// fixed returns the tree with the fix. Should the fix not apply, what it changes
// of tests and documents is left out; should that not do, patches that came before
// it come along, and the account says so.
func (d *driver) fixed(ctx context.Context, s states) (tree, error) {
	if s.after != nil {
		return *s.after, nil
	}
	_, own, err := d.patches(ctx, s.before.dsc)
	if err != nil {
		return tree{}, err
	}
	if s.before.series != nil {
		own = parseSeries(*s.before.series)
	}
	inputs, err := s.before.inputs()
	if err != nil {
		return tree{}, err
	}
	facts, err := d.do(ctx, job{
		name: "fit", inputs: digest(inputs, joined(own.lines), joined(s.fixes), joined(s.pool), joined(s.order)),
		advice: "The log has the words of the program that applies patches.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			return d.fit(ctx, log, s, own)
		},
	})
	if err != nil {
		return tree{}, err
	}
	for _, name := range split(facts["trimmed"]) {
		s = s.trim(name, d.path(trimmedFolder, name))
	}
	taken := split(facts["taken"])
	for _, line := range taken {
		if !slices.Contains(s.fixes, line) {
			d.notices = append(d.notices, "the fix does not apply without "+patchIn(line)+", which comes along")
		}
	}
	return s.with(own, taken), nil
}

// fit finds out what it takes to apply the fix.
func (d *driver) fit(ctx context.Context, log io.Writer, s states, own series) (facts map[string]string, products []string, err error) {
	if err := clearFolder(d.path(trimmedFolder)); err != nil {
		return nil, nil, err
	}
	mine := d.patchesOf(s.before.dsc)
	taken := slices.Clone(s.fixes)
	var trimmed []string
	for {
		failed, err := d.applies(ctx, log, s.with(own, taken))
		if err != nil {
			return nil, nil, err
		}
		if failed == "" {
			return map[string]string{"taken": joined(taken), "trimmed": joined(trimmed)}, []string{trimmedFolder}, nil
		}
		text, err := os.ReadFile(s.file(failed, mine))
		if err != nil {
			return nil, nil, err
		}
		if less := withoutTests(string(text)); less != string(text) && !slices.Contains(trimmed, failed) {
			trimmed = append(trimmed, failed)
			if err := writeFile(d.path(trimmedFolder, failed), []byte(less)); err != nil {
				return nil, nil, err
			}
			s = s.trim(failed, d.path(trimmedFolder, failed))
			continue
		}
		more, err := s.needed(failed, taken, mine)
		if err != nil {
			return nil, nil, err
		}
		taken = append(taken, more)
	}
}

// trim returns the states with another file for a patch.
func (s states) trim(name, file string) states {
	s.extra = maps.Clone(s.extra)
	if s.extra == nil {
		s.extra = map[string]string{}
	}
	s.extra[name] = file
	return s
}

// file returns where a patch is: one of the newer source's, or in the folder of
// the source's own.
func (s states) file(name, own string) string {
	if file := s.extra[name]; file != "" {
		return file
	}
	return filepath.Join(own, name)
}

// split is the reverse of joined.
func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// withoutTests drops from a diff what it changes of tests and of texts for people.
func withoutTests(diff string) string {
	var out strings.Builder
	dropping := false
	lines := slices.Collect(strings.Lines(diff))
	for i, line := range lines {
		if names, ok := strings.CutPrefix(line, "diff --git "); ok {
			dropping = forPeople(first(names))
		} else if strings.HasPrefix(line, "--- ") && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "+++ ") {
			name := first(line[4:])
			if name == "/dev/null" {
				name = first(lines[i+1][4:])
			}
			dropping = forPeople(name)
		}
		if !dropping {
			out.WriteString(line)
		}
	}
	return out.String()
}

// first returns the first word of a text.
func first(text string) string {
	for word := range strings.FieldsSeq(text) {
		return word
	}
	return ""
}

// forPeople reports whether nothing of a file, named as in a diff, becomes code.
func forPeople(name string) bool {
	_, below, _ := strings.Cut(name, "/")
	for part := range strings.SplitSeq(below, "/") {
		switch part {
		case "test", "tests", "testsuite", "doc", "docs", "NEWS", "ChangeLog", "CHANGES", "Changes", "RELEASE-NOTES":
			return true
		}
	}
	return strings.HasSuffix(below, ".md")
}

// with returns the tree with some lines of the pool: each behind the patch that
// it follows in the newer series, or at the end.
func (s states) with(own series, taken []string) tree {
	lines := slices.Clone(own.lines)
	for _, line := range s.pool {
		if !slices.Contains(taken, line) {
			continue
		}
		at := len(lines)
		for i := slices.Index(s.order, line) - 1; i >= 0; i-- {
			if before := slices.Index(lines, s.order[i]); before >= 0 && patchIn(s.order[i]) != "" {
				at = before + 1
				break
			}
		}
		lines = slices.Insert(lines, at, line)
	}
	series := joined(lines)
	return tree{dsc: s.before.dsc, series: &series, extra: s.extra}
}

// needed returns the line of the nearest patch before the failed one that touches
// one of its files.
func (s states) needed(failed string, taken []string, own string) (string, error) {
	at := slices.IndexFunc(s.pool, func(line string) bool { return patchIn(line) == failed })
	files := func(name string) (map[string]bool, error) {
		text, err := os.ReadFile(s.file(name, own))
		return touches(withoutTests(string(text))), err
	}
	want, err := files(failed)
	if err != nil {
		return "", err
	}
	for i := at - 1; i >= 0; i-- {
		line := s.pool[i]
		name := patchIn(line)
		if name == "" || slices.Contains(taken, line) {
			continue
		}
		has, err := files(name)
		if err != nil {
			return "", err
		}
		for file := range has {
			if want[file] {
				return line, nil
			}
		}
	}
	return "", fmt.Errorf("%s does not apply to the source of %s", failed, s.before.dsc.version)
}

// touches returns the files that a diff changes.
func touches(diff string) map[string]bool {
	files := map[string]bool{}
	for line := range strings.Lines(diff) {
		for _, mark := range []string{"--- ", "+++ "} {
			if name, ok := strings.CutPrefix(line, mark); ok {
				name, _, _ = strings.Cut(strings.TrimSpace(name), "\t")
				if _, below, ok := strings.Cut(name, "/"); ok {
					files[below] = true
				}
			}
		}
	}
	return files
}

// applies unpacks a tree, and applies its patches. It returns the name of the
// one that does not apply.
func (d *driver) applies(ctx context.Context, log io.Writer, t tree) (failed string, err error) {
	const layer = "fit"
	if err := d.lay(ctx, log, layer, t); err != nil {
		return "", err
	}
	var said bytes.Buffer
	err = d.root.command(ctx, io.MultiWriter(log, &said), layer, "/usr/bin/env", "-C", d.treePath(), "dpkg-source", "--before-build", ".")
	if err == nil {
		return "", clearFolder(d.path("build"))
	}
	const mark = "dpkg-source: info: applying "
	if i := strings.LastIndex(said.String(), mark); i >= 0 {
		failed, _, _ = strings.Cut(said.String()[i+len(mark):], "\n")
		if failed = strings.TrimSpace(failed); t.series != nil && parseSeries(*t.series).has(failed) {
			return failed, nil
		}
	}
	return "", err
}
