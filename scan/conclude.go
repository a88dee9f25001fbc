package scan

import "strings"

// verdict translates a definition's result.
func verdict(result string) State {
	switch result {
	case "true":
		return Vulnerable
	case "false":
		return NotVulnerable
	default: // error, unknown, not evaluated, not applicable: nobody looked
		return Unknown
	}
}

// conclude joins definitions, results and packages into findings.
func (p *ovalResults) conclude() error {
	for i := range p.definitions {
		d := &p.definitions[i]
		result, evaluated := p.verdicts[d.id]
		if !evaluated {
			continue
		}
		if len(d.applied) > 0 {
			if result == "true" {
				p.report.Applied = append(p.report.Applied, d.applied...)
			}
			continue
		}
		state := verdict(result)
		finding := Finding{Definition: d.id, Title: d.title, IDs: d.ids, Severity: d.severity, State: state}
		packages := p.packages(d, state)
		if len(packages) == 0 {
			packages = []Finding{{}}
		}
		for _, found := range packages {
			if len(p.report.Findings) >= MaxFindings {
				return p.w.fail(ErrLimit, "too many findings")
			}
			finding.Component, finding.Installed, finding.Fixed = found.Component, found.Installed, found.Fixed
			p.report.Findings = append(p.report.Findings, finding)
		}
	}
	return nil
}

// packages returns the packages that a definition is about: of a vulnerable
// one those that make it so, otherwise all that it looks at. Only Component,
// Installed and Fixed are set.
func (p *ovalResults) packages(d *definition, state State) []Finding {
	var out []Finding
	for _, c := range d.tests {
		test, ok := p.tests[c.test]
		if !ok || c.negated {
			continue
		}
		fixed, bounded := p.states[test.state]
		if !bounded {
			continue // asks for the package's signature, or whether it is there
		}
		seen := p.outcomes[c.test]
		if state == Vulnerable && seen.result != "true" {
			continue
		}
		found := Finding{Component: p.objects[test.object], Fixed: plainVersion(fixed)}
		for _, id := range seen.items {
			if i, ok := p.items[id]; ok {
				found.Component, found.Installed = i.name, plainVersion(i.version)
				break
			}
		}
		if found.Component != "" {
			out = append(out, found)
		}
	}
	return out
}

// plainVersion writes a version as packaging tools do: without an epoch of
// zero, which OVAL always writes.
func plainVersion(evr string) string { return strings.TrimPrefix(evr, "0:") }
