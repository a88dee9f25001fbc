package debian

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fixed returns the tree with the fix. Should the fix not apply without patches
// that came before it, those come along, and the account says so.
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
	taken := slices.Clone(s.fixes)
	inputs, err := s.before.inputs()
	if err != nil {
		return tree{}, err
	}
	facts, err := d.do(ctx, job{
		name: "fit", inputs: digest(inputs, joined(own.lines), joined(s.fixes), joined(s.pool), joined(s.order)),
		advice: "The log has the words of the program that applies patches.",
		run: func(ctx context.Context, log io.Writer) (map[string]string, []string, error) {
			for {
				t := s.with(own, taken)
				failed, err := d.applies(ctx, log, t)
				if err != nil || failed == "" {
					return map[string]string{"taken": joined(taken)}, nil, err
				}
				more, err := s.needed(failed, taken, d.path("patches", noEpoch(s.before.dsc.version)))
				if err != nil {
					return nil, nil, err
				}
				taken = append(taken, more)
			}
		},
	})
	if err != nil {
		return tree{}, err
	}
	taken = strings.Split(strings.TrimSuffix(facts["taken"], "\n"), "\n")
	for _, line := range taken {
		if !slices.Contains(s.fixes, line) {
			d.notices = append(d.notices, "the fix does not apply without "+patchIn(line)+", which comes along")
		}
	}
	return s.with(own, taken), nil
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
		file := s.extra[name]
		if file == "" {
			file = filepath.Join(own, name)
		}
		text, err := os.ReadFile(file)
		return touches(string(text)), err
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
