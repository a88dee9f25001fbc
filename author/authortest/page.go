package authortest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Page wants the table of a page that lists fixes to have exactly these rows.
func Page(t testing.TB, path string, rows []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| fix ") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
