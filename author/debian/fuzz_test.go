package debian

import (
	"strings"
	"testing"
)

// Descriptions, lists and changelogs come from an archive; nothing that they say
// may end a build but with an answer.
func FuzzTexts(f *testing.F) {
	for _, text := range []string{sampleDSC, sampleSeries, "deb [arch=amd64] http://x/debian bookworm main # text\n", "Types: deb\nURIs: http://x\nSuites: a\n b\n",
		"Package: libx\nSource: x (1-1)\nVersion: 1-1+b1\n\n", "x (1-1) stable; urgency=low\n", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "diff --git a/tests/x b/tests/x\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDSC(text); err == nil {
			for _, name := range d.files {
				if strings.ContainsRune(name, '/') {
					t.Errorf("a file %q beside the description", name)
				}
			}
		}
		s := parseSeries(text)
		if names := s.names(); len(names) > 0 {
			at, err := s.find(names[:1])
			if err == nil {
				if _, ends := s.states(at, maxStates); len(ends) > maxStates {
					t.Errorf("%d states", len(ends))
				}
			}
		}
		if less := withoutTests(text); len(less) > len(text) {
			t.Error("a diff grew")
		}
		for name := range touches(text) {
			_ = forPeople(name)
		}
		if out, err := trimChangelog(text, "1-1"); err == nil && !strings.HasSuffix(text, out) {
			t.Error("a changelog is not the end of what it was")
		}
		withSourceLines(text)
		withSourceTypes(text)
		binaryVersions(text, "1-1")
	})
}
