package oval_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/scan"
	"livemend.dev/livemend/scan/oval"
)

func document(list string, vulnerabilities ...oval.Vulnerability) *oval.Document {
	return &oval.Document{Time: time.Unix(1_800_000_000, 0), List: list, Vulnerabilities: vulnerabilities}
}

func TestWriteRefusesWhatWouldNotMeanItself(t *testing.T) {
	good := oval.Vulnerability{ID: "CVE-2026-1", Title: "<&\"'>", Severity: "high", Package: "libc6", FixedVersion: "1:2.36-9+deb12u10~x"}
	first, err := document("/run/livemend/cvelist", good).Write()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := document("/run/livemend/cvelist", good).Write(); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same input gave other bytes, %v", err)
	}
	for what, change := range map[string]func(*oval.Document){
		"nothing":          func(d *oval.Document) { d.Vulnerabilities = nil },
		"relative list":    func(d *oval.Document) { d.List = "cvelist" },
		"list with ..":     func(d *oval.Document) { d.List = "/run/../etc/shadow" },
		"pattern as id":    func(d *oval.Document) { d.Vulnerabilities[0].ID = ".*" },
		"two ids":          func(d *oval.Document) { d.Vulnerabilities[0].ID = "CVE-1|CVE-2" },
		"line in an id":    func(d *oval.Document) { d.Vulnerabilities[0].ID = "CVE-1\nx" },
		"upper package":    func(d *oval.Document) { d.Vulnerabilities[0].Package = "LibC" },
		"no version":       func(d *oval.Document) { d.Vulnerabilities[0].FixedVersion = "" },
		"version in words": func(d *oval.Document) { d.Vulnerabilities[0].FixedVersion = "next week" },
		"control in title": func(d *oval.Document) { d.Vulnerabilities[0].Title = "a\x01" },
		"endless severity": func(d *oval.Document) { d.Vulnerabilities[0].Severity = strings.Repeat("x", oval.MaxText+1) },
	} {
		d := document("/run/livemend/cvelist", good)
		change(d)
		if _, err := d.Write(); !errors.Is(err, oval.ErrInput) {
			t.Errorf("%s: %v, want ErrInput", what, err)
		}
	}
}

// evaluate runs the real scanner.
func evaluate(t *testing.T, definitions string) *scan.Report {
	t.Helper()
	results := filepath.Join(t.TempDir(), "results.xml")
	if out, err := exec.CommandContext(t.Context(), "oscap", "oval", "eval", "--results", results, definitions).CombinedOutput(); err != nil {
		t.Fatalf("oscap: %v\n%s", err, out)
	}
	file, err := os.Open(results)
	if err != nil {
		t.Fatal(err)
	}
	report, err := scan.Parse(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return report
}

// installed returns the version of a package of this machine.
func installed(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		t.Skipf("no version of %s: %v", name, err)
	}
	return string(out)
}

// TestOpenSCAPSeesTheLivePatch runs the distribution's scanner on this machine,
// without and with an identifier in the list of covered ones.
func TestOpenSCAPSeesTheLivePatch(t *testing.T) {
	if _, err := exec.LookPath("oscap"); err != nil {
		t.Skip("OpenSCAP is not installed (package openscap-scanner)")
	}
	// libc6 has a revision, dpkg has none: both forms of a version are compared.
	libc, dpkg := installed(t, "libc6"), installed(t, "dpkg")
	dir := t.TempDir()
	list := filepath.Join(dir, "cvelist")
	text, err := document(list,
		oval.Vulnerability{ID: "DEMO-2026-0001", Title: "old <libc> & more", Severity: "high", Package: "libc6", FixedVersion: libc + "+1"},
		oval.Vulnerability{ID: "CVE-2026-0002", Severity: "low", Package: "dpkg", FixedVersion: dpkg + "+1"},
		oval.Vulnerability{ID: "CVE-2026-0003", Package: "libc6", FixedVersion: libc},
		oval.Vulnerability{ID: "CVE-2026-0004", Package: "dpkg", FixedVersion: dpkg},
		oval.Vulnerability{ID: "CVE-2026-0005", Package: "there-is-no-such-package", FixedVersion: "99"},
	).Write()
	if err != nil {
		t.Fatal(err)
	}
	definitions := filepath.Join(dir, "definitions.xml")
	if err := os.WriteFile(definitions, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "oscap", "oval", "validate", definitions).CombinedOutput(); err != nil {
		t.Errorf("the definitions break OVAL's schema: %v\n%s", err, out)
	}

	vulnerable := func(r *scan.Report) []string {
		ids := []string{}
		for _, f := range r.Findings {
			if f.State == scan.Vulnerable {
				ids = append(ids, f.IDs...)
			}
		}
		slices.Sort(ids)
		return ids
	}
	before := evaluate(t, definitions)
	if got, want := vulnerable(before), []string{"CVE-2026-0002", "DEMO-2026-0001"}; !slices.Equal(got, want) {
		t.Errorf("before: vulnerable %q, want %q", got, want)
	}
	if len(before.Applied) != 0 || len(before.Findings) != 5 || before.Host == "" {
		t.Errorf("before: %+v", before)
	}
	for _, f := range before.Findings {
		switch f.IDs[0] {
		case "DEMO-2026-0001":
			if f.Component != "libc6" || f.Installed != libc || f.Fixed != libc+"+1" || f.Severity != "high" || f.Title != "old <libc> & more" {
				t.Errorf("finding = %+v", f)
			}
		case "CVE-2026-0004":
			if f.State != scan.NotVulnerable || f.Component != "dpkg" || f.Installed != dpkg || f.Fixed != dpkg {
				t.Errorf("finding = %+v", f)
			}
		}
	}
	// A name that only contains the identifier must not count.
	if err := os.WriteFile(list, []byte("CVE-2026-00020\nDEMO-2026-0001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after := evaluate(t, definitions)
	if got, want := vulnerable(after), []string{"CVE-2026-0002"}; !slices.Equal(got, want) {
		t.Errorf("after: vulnerable %q, want %q", got, want)
	}
	if !slices.Equal(after.Applied, []string{"DEMO-2026-0001"}) {
		t.Errorf("after: applied %q", after.Applied)
	}
}
