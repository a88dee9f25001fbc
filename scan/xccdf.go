package scan

import (
	"encoding/xml"
	"slices"
	"strings"
)

const nsXCCDF = "http://checklists.nist.gov/xccdf/"

// rule is what a benchmark says of one rule.
type rule struct {
	title string
	ids   []string
}

// xccdfResults gathers a benchmark with one test result. Only rules that name
// an identifier of a vulnerability count: others are about configuration.
type xccdfResults struct {
	w      *walker
	rules  map[string]rule
	tested int
	report Report
}

func parseXCCDF(w *walker) (*Report, error) {
	p := &xccdfResults{w: w, rules: map[string]rule{}, report: Report{Scanner: "openscap"}}
	if err := w.children(p.part); err != nil {
		return nil, err
	}
	if p.tested != 1 {
		return nil, w.fail(ErrFormat, "it does not hold exactly one test result")
	}
	return &p.report, nil
}

// part reads one part of a benchmark or of a group of rules.
func (p *xccdfResults) part(e xml.StartElement) error {
	switch e.Name.Local {
	case "Group":
		return p.w.children(p.part)
	case "Rule":
		return p.rule(e)
	case "TestResult":
		p.tested++
		return p.w.children(func(e xml.StartElement) error {
			switch e.Name.Local {
			case "target":
				return p.w.into(&p.report.Host)
			case "rule-result":
				return p.result(e)
			}
			return p.w.skip()
		})
	}
	return p.w.skip()
}

func (p *xccdfResults) rule(e xml.StartElement) error {
	var r rule
	err := p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "title":
			return p.w.into(&r.title)
		case "ident":
			return p.ident(e, &r.ids)
		}
		return p.w.skip()
	})
	if err != nil {
		return err
	}
	return keep(p.w, p.rules, attr(e, "id"), r)
}

// ident reads an identifier when it is one of a vulnerability.
func (p *xccdfResults) ident(e xml.StartElement, ids *[]string) error {
	id, err := p.w.text()
	if err != nil || !strings.HasSuffix(attr(e, "system"), "cve.mitre.org") {
		return err
	}
	return addID(p.w, ids, id)
}

func (p *xccdfResults) result(e xml.StartElement) error {
	known := p.rules[attr(e, "idref")]
	f := Finding{Definition: attr(e, "idref"), Title: known.title, Severity: severity(attr(e, "severity"))}
	ids := slices.Clone(known.ids)
	var word string
	err := p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "result":
			return p.w.into(&word)
		case "ident":
			return p.ident(e, &ids)
		case "check":
			return p.w.under("check-content-ref", func(c xml.StartElement) error {
				if name := attr(c, "name"); name != "" {
					f.Definition = name // the OVAL definition, the same as in a report of its own
				}
				return p.w.skip()
			})
		}
		return p.w.skip()
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	if len(p.report.Findings) >= MaxFindings {
		return p.w.fail(ErrLimit, "too many findings")
	}
	f.IDs = ids
	switch word {
	case "fail":
		f.State = Vulnerable
	case "pass", "fixed":
		f.State = NotVulnerable
	default:
		f.State = Unknown
	}
	p.report.Findings = append(p.report.Findings, f)
	return nil
}
