package scan_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/scan"
)

func parseFile(t *testing.T, path string) *scan.Report {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := scan.Parse(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return report
}

// TestScanBeforeAndAfterALivePatch reads two reports that OpenSCAP wrote of
// the same machine.
func TestScanBeforeAndAfterALivePatch(t *testing.T) {
	want := &scan.Report{
		Scanner: "openscap", Host: "web1", OS: "Debian GNU/Linux", OSVersion: "12 (bookworm)",
		Findings: []scan.Finding{
			{
				Definition: "oval:dev.livemend.vulnerability:def:3", Title: "CVE-2026-0003 in no-such-package", IDs: []string{"CVE-2026-0003"},
				Severity: "low", Component: "no-such-package", Fixed: "1:2.0", State: scan.NotVulnerable,
			},
			{
				Definition: "oval:dev.livemend.vulnerability:def:2", Title: "CVE-2026-0002 in dpkg", IDs: []string{"CVE-2026-0002"},
				Severity: "medium", Component: "dpkg", Installed: "1.21.22", Fixed: "1.0", State: scan.NotVulnerable,
			},
			{
				Definition: "oval:dev.livemend.vulnerability:def:1", Title: "out-of-bounds read in libc6", IDs: []string{"DEMO-2026-0001"},
				Severity: "high", Component: "libc6", Installed: "2.36-9+deb12u14", Fixed: "2.99-1", State: scan.Vulnerable,
			},
		},
	}
	if diff := cmp.Diff(want, parseFile(t, "testdata/oscap_before.xml")); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	want.Findings[2].State = scan.NotVulnerable
	want.Applied = []string{"DEMO-2026-0001"}
	if diff := cmp.Diff(want, parseFile(t, "testdata/oscap_after.xml")); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

// report builds OVAL results: definitions, then what was found.
func report(definitions, verdicts string) string {
	return `<oval_results xmlns="http://oval.mitre.org/XMLSchema/oval-results-5"><oval_definitions><definitions>` + definitions +
		`</definitions><tests>
		<rpminfo_test id="t1"><object object_ref="o1"/><state state_ref="s1"/></rpminfo_test>
		<rpminfo_test id="t2"><object object_ref="o2"/><state state_ref="s1"/></rpminfo_test>
		<rpminfo_test id="key"><object object_ref="o1"/><state state_ref="s2"/></rpminfo_test>
		<file_test id="t3"><object object_ref="o1"/></file_test></tests>
		<objects><rpminfo_object id="o1"><name>bash</name></rpminfo_object><rpminfo_object id="o2"><name>bash-doc</name></rpminfo_object></objects>
		<states><rpminfo_state id="s1"><evr operation="less than">0:5.2-1</evr></rpminfo_state>
		<rpminfo_state id="s2"><evr operation="greater than">0:1-1</evr></rpminfo_state></states></oval_definitions>
		<results><system><definitions>` + verdicts + `</definitions><tests>
		<test test_id="t1" result="true"><tested_item item_id="1"/></test><test test_id="t2" result="false"/><test test_id="key" result="true"/></tests>
		<oval_system_characteristics><system_data><rpminfo_item id="1"><name>bash</name><evr>0:5.1-9</evr></rpminfo_item></system_data>
		</oval_system_characteristics></system></results></oval_results>`
}

func TestWhatCountsAsAFinding(t *testing.T) {
	const references = `<metadata><title>T</title><reference source="RHSA" ref_id="RHSA-1"/><reference source="CVE" ref_id="CVE-1"/>
		<reference source="CVE" ref_id="CVE-1"/><advisory><severity>Important</severity></advisory></metadata>`
	const both = `<criteria operator="OR"><criterion test_ref="key"/><criteria><criterion test_ref="t1"/><criterion test_ref="t2"/></criteria></criteria>`
	rule := func(class, criteria string) string {
		return `<definition id="d" class="` + class + `">` + references + criteria + `</definition>`
	}
	verdict := func(result string) string { return `<definition definition_id="d" result="` + result + `"/>` }
	finding := func(state scan.State, component, installed string) scan.Finding {
		f := scan.Finding{Definition: "d", Title: "T", IDs: []string{"RHSA-1", "CVE-1"}, Severity: "high", State: state, Component: component, Installed: installed}
		if component != "" {
			f.Fixed = "5.2-1"
		}
		return f
	}
	bash := finding(scan.Vulnerable, "bash", "5.1-9")
	for _, c := range []struct {
		name    string
		text    string
		want    []scan.Finding
		applied []string
	}{
		{"a missing update is a vulnerability", report(rule("patch", both), verdict("true")), []scan.Finding{bash}, nil},
		{"a vulnerability", report(rule("vulnerability", both), verdict("true")), []scan.Finding{bash}, nil},
		{
			"false: every package looked at", report(rule("patch", both), verdict("false")),
			[]scan.Finding{finding(scan.NotVulnerable, "bash", "5.1-9"), finding(scan.NotVulnerable, "bash-doc", "")}, nil,
		},
		{"error", report(rule("patch", ""), verdict("error")), []scan.Finding{finding(scan.Unknown, "", "")}, nil},
		{"not applicable", report(rule("patch", ""), verdict("not applicable")), []scan.Finding{finding(scan.Unknown, "", "")}, nil},
		{"no package", report(rule("patch", `<criteria><criterion test_ref="t3"/></criteria>`), verdict("true")), []scan.Finding{finding(scan.Vulnerable, "", "")}, nil},
		{
			"a negated test names no package", report(rule("patch", `<criteria negate="true"><criterion test_ref="t1"/></criteria>`), verdict("true")),
			[]scan.Finding{finding(scan.Vulnerable, "", "")}, nil,
		},
		{
			"twice negated is not negated", report(rule("patch", `<criteria negate="true"><criterion negate="true" test_ref="t1"/></criteria>`), verdict("true")),
			[]scan.Finding{bash}, nil,
		},
		{"compliance: true is good", report(rule("compliance", both), verdict("true")), nil, nil},
		{"inventory", report(rule("inventory", both), verdict("true")), nil, nil},
		{"miscellaneous", report(rule("miscellaneous", both), verdict("true")), nil, nil},
		{"not evaluated at all", report(rule("patch", both), ""), nil, nil},
		{"without definition", report("", verdict("true")), nil, nil},
		{
			"a live patch is in force", report(`<definition id="d" class="patch"><metadata><reference source="LIVEMEND-APPLIED" ref_id="CVE-1"/></metadata></definition>`, verdict("true")),
			nil, []string{"CVE-1"},
		},
		{
			"a live patch is not in force", report(`<definition id="d" class="patch"><metadata><reference source="LIVEMEND-APPLIED" ref_id="CVE-1"/></metadata></definition>`, verdict("false")),
			nil, nil,
		},
	} {
		got, err := scan.Parse(strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Findings); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(c.applied, got.Applied); diff != "" {
			t.Errorf("%s: applied (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestXCCDF(t *testing.T) {
	const ident = `<ident system="http://cve.mitre.org">CVE-1</ident>`
	text := `<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2"><Group><Rule id="r1"><title>T1</title>` + ident + `</Rule></Group>
		<Rule id="config"><title>a setting</title></Rule>
		<TestResult><target>web1</target>
		<rule-result idref="r1" severity="medium"><result>fail</result><check><check-content-ref name="oval:x:def:1"/></check></rule-result>
		<rule-result idref="config" severity="high"><result>fail</result></rule-result>
		<rule-result idref="r2"><result>pass</result>` + ident + `</rule-result>
		<rule-result idref="r3"><result>error</result>` + ident + `</rule-result></TestResult></Benchmark>`
	want := &scan.Report{Scanner: "openscap", Host: "web1", Findings: []scan.Finding{
		{Definition: "oval:x:def:1", Title: "T1", IDs: []string{"CVE-1"}, Severity: "medium", State: scan.Vulnerable},
		{Definition: "r2", IDs: []string{"CVE-1"}, State: scan.NotVulnerable},
		{Definition: "r3", IDs: []string{"CVE-1"}, State: scan.Unknown},
	}}
	got, err := scan.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostileReports(t *testing.T) {
	good := report("", "")
	const start = `<oval_results xmlns="http://oval.mitre.org/XMLSchema/oval-results-5">`
	for name, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"empty":                {strings.NewReader(""), scan.ErrFormat},
		"no XML":               {strings.NewReader("hello"), scan.ErrFormat},
		"another document":     {strings.NewReader("<html/>"), scan.ErrFormat},
		"another name space":   {strings.NewReader(`<oval_results xmlns="urn:x"/>`), scan.ErrFormat},
		"no system":            {strings.NewReader(start + "</oval_results>"), scan.ErrFormat},
		"two systems":          {strings.NewReader(start + "<results><system/><system/></results></oval_results>"), scan.ErrFormat},
		"something behind":     {strings.NewReader(good + "<more/>"), scan.ErrFormat},
		"entities":             {strings.NewReader(`<!DOCTYPE x [<!ENTITY a "b">]>` + good), scan.ErrFormat},
		"outside entity":       {strings.NewReader(`<!DOCTYPE x SYSTEM "file:///etc/passwd">` + good), scan.ErrFormat},
		"unknown entity":       {strings.NewReader(start + "&passwd;</oval_results>"), scan.ErrFormat},
		"wrong end":            {strings.NewReader(start + "<results></oval_results>"), scan.ErrFormat},
		"deep":                 {strings.NewReader(start + strings.Repeat("<a>", 1<<18)), scan.ErrLimit},
		"deep criteria":        {strings.NewReader(report(`<definition id="d" class="patch">`+strings.Repeat("<criteria>", 99)+strings.Repeat("</criteria>", 99)+"</definition>", "")), scan.ErrLimit},
		"long text":            {strings.NewReader(report(`<definition id="d" class="patch"><metadata><title>`+strings.Repeat("x", scan.MaxText+1)+"</title></metadata></definition>", "")), scan.ErrLimit},
		"long attribute":       {strings.NewReader(start + `<results x="` + strings.Repeat("x", scan.MaxText+1) + `"/></oval_results>`), scan.ErrLimit},
		"many identifiers":     {strings.NewReader(report(`<definition id="d" class="patch"><metadata>`+numbered(`<reference source="CVE" ref_id="%d"/>`, scan.MaxIDs+1)+"</metadata></definition>", "")), scan.ErrLimit},
		"another encoding":     {strings.NewReader(`<?xml version="1.0" encoding="UTF-7"?>` + good), nil},
		"broken UTF-8":         {strings.NewReader(start + "\xff</oval_results>"), scan.ErrFormat},
		"XCCDF without result": {strings.NewReader(`<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2"/>`), scan.ErrFormat},
	} {
		got, err := scan.Parse(c.r)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, c.want)
		}
	}
	broken := errors.New("broken")
	if _, err := scan.Parse(io.MultiReader(strings.NewReader(start), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("the reader's error is hidden: %v", err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestEveryTruncationIsRefused(t *testing.T) {
	whole, err := os.ReadFile("testdata/oscap_after.xml")
	if err != nil {
		t.Fatal(err)
	}
	whole = bytes.TrimSpace(whole)
	for i := 0; i < len(whole); i += 61 {
		if _, err := scan.Parse(bytes.NewReader(whole[:i])); !errors.Is(err, scan.ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v", i, len(whole), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/oscap_before.xml", "testdata/oscap_after.xml"} {
		seed, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		report, err := scan.Parse(bytes.NewReader(text))
		if (report == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", report, err)
		}
	})
}

// TestRealReports reads reports of other people's machines.
func TestRealReports(t *testing.T) {
	samples := os.Getenv("LIVEMEND_SAMPLES")
	if samples == "" {
		t.Skip("LIVEMEND_SAMPLES does not name a folder of scanner reports")
	}
	count := func(path string) (vulnerable, not, ids int) {
		r := parseFile(t, filepath.Join(samples, path))
		if r.Host == "" {
			t.Errorf("%s: no host", path)
		}
		seen := map[string]bool{}
		for _, f := range r.Findings {
			switch f.State {
			case scan.Vulnerable:
				vulnerable++
				for _, id := range f.IDs {
					seen[id] = true
				}
			case scan.NotVulnerable:
				not++
			}
		}
		return vulnerable, not, len(seen)
	}
	for path, want := range map[string][3]int{
		"reference-runs/oscap_oval_results_before.xml": {2, 1, 2},
		"reference-runs/oscap_oval_results_after.xml":  {2, 1, 2},
		"openscap/dd_many_vuln_rhsa.xml":               {30, 2855, 128},
	} {
		vulnerable, not, ids := count(path)
		if got := [3]int{vulnerable, not, ids}; got != want {
			t.Errorf("%s: %d vulnerable, %d not, %d identifiers; want %v", path, vulnerable, not, ids, want)
		}
	}
}
