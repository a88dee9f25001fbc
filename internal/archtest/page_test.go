package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The page for newcomers names every folder with Go code.
func TestArchitecturePageNamesEveryPackage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		for _, name := range folders(cells[1]) {
			named[name] = true
		}
	}
	for _, p := range packages(t) {
		if !named[p.folder()] {
			t.Errorf("docs/architecture.md does not name %s: say what it is for", p.folder())
		}
	}
}

// folders reads a cell such as "demo, demo/{sample,world}".
func folders(cell string) (names []string) {
	prefix := ""
	for _, part := range strings.Split(cell, ",") {
		part = strings.TrimSpace(part)
		if before, first, ok := strings.Cut(part, "{"); ok {
			prefix, part = before, first
		}
		names = append(names, prefix+strings.TrimSuffix(part, "}"))
		if strings.HasSuffix(part, "}") {
			prefix = ""
		}
	}
	return names
}
