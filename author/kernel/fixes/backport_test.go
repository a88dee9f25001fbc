package fixes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// backport writes a diff that makes the named blocks of files what they are in
// another source tree: functions by name, structures by their first line, whole
// files by "*". A block that the old file does not have goes in front of the first
// one that it has.
func backport(ctx context.Context, old, later string, take map[string][]string, to string) error {
	var all strings.Builder
	for _, file := range slices.Sorted(keys(take)) {
		was, err := os.ReadFile(filepath.Join(old, file))
		if err != nil {
			return err
		}
		is, err := os.ReadFile(filepath.Join(later, file))
		if err != nil {
			return err
		}
		text := string(is)
		if !slices.Equal(take[file], []string{"*"}) {
			if text, err = merge(string(was), string(is), take[file]); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		merged := to + ".merged"
		if err := os.WriteFile(merged, []byte(text), 0o644); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "diff", "-U3", "-p", "--label", "a/"+file, "--label", "b/"+file, filepath.Join(old, file), merged).Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			return err
		}
		if len(out) == 0 {
			return fmt.Errorf("%s: nothing differs", file)
		}
		all.Write(out)
	}
	return os.WriteFile(to, []byte(all.String()), 0o644)
}

func keys(m map[string][]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func merge(was, is string, blocks []string) (string, error) {
	var missing strings.Builder
	first := -1
	for _, name := range blocks {
		from, to, ok := block(is, name)
		if !ok {
			return "", fmt.Errorf("the later version has no %s", name)
		}
		fresh := is[from:to]
		if from, to, ok := block(was, name); ok {
			was = was[:from] + fresh + was[to:]
			if first < 0 || from < first {
				first = from
			}
			continue
		}
		missing.WriteString(fresh + "\n")
	}
	if missing.Len() > 0 {
		if first < 0 {
			return "", errors.New("there is no old block to put a new one in front of")
		}
		was = was[:first] + missing.String() + was[first:]
	}
	return was, nil
}

// block finds a function or structure that ends with a brace in the first column.
func block(text, name string) (from, to int, ok bool) {
	pattern := `(?m)^(?:[A-Za-z_][^;\n=]*\b)?` + regexp.QuoteMeta(name) + `\([^;{}]*\)\n*\{\n`
	if strings.HasSuffix(name, "{") {
		pattern = `(?m)^` + regexp.QuoteMeta(name) + `\n`
	}
	at := regexp.MustCompile(pattern).FindStringIndex(text)
	if at == nil {
		return 0, 0, false
	}
	end := regexp.MustCompile(`(?m)^\}.*\n`).FindStringIndex(text[at[1]:])
	if end == nil {
		return 0, 0, false
	}
	return at[0], at[1] + end[1], true
}
