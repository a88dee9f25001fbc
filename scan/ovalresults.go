package scan

import (
	"encoding/xml"
	"strings"

	"livemend.dev/livemend/scan/oval"
)

const nsOVAL = "http://oval.mitre.org/XMLSchema/oval-results-5"

// Classes of definitions that speak of vulnerabilities. For others, such as
// compliance, a result of true is good news or none.
const (
	classVulnerability = "vulnerability"
	classPatch         = "patch"
)

// definition is what the definitions part says of a rule.
type definition struct {
	id, class, title, severity string
	ids                        []string
	applied                    []string // identifiers whose live patch it looks for
	tests                      []criterion
}

// criterion is one test that a definition asks for.
type criterion struct {
	test    string
	negated bool
}

// packageTest is a test that compares a package's version.
type packageTest struct{ object, state string }

// item is a package that the scanner found.
type item struct{ name, version string }

// outcome is the result of one test.
type outcome struct {
	result string
	items  []string
}

// ovalResults gathers the parts of a results document, which refer to each other by id.
type ovalResults struct {
	w           *walker
	definitions []definition
	tests       map[string]packageTest
	objects     map[string]string // package name
	states      map[string]string // version that the installed one is compared with
	verdicts    map[string]string // definition -> result
	outcomes    map[string]outcome
	items       map[string]item
	systems     int
	report      Report
}

func parseOVAL(w *walker) (*Report, error) {
	p := &ovalResults{
		w: w, tests: map[string]packageTest{}, objects: map[string]string{}, states: map[string]string{},
		verdicts: map[string]string{}, outcomes: map[string]outcome{}, items: map[string]item{},
		report: Report{Scanner: "openscap"},
	}
	err := w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "oval_definitions":
			return p.content()
		case "results":
			return w.under("system", func(xml.StartElement) error { return p.system() })
		}
		return w.skip()
	})
	if err != nil {
		return nil, err
	}
	if p.systems != 1 {
		return nil, w.fail(ErrFormat, "it is not about exactly one system")
	}
	return &p.report, p.conclude()
}

// content reads the definitions part.
func (p *ovalResults) content() error {
	return p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "definitions":
			return p.w.under("definition", p.definition)
		case "tests":
			return p.w.children(p.packageTest)
		case "objects":
			return p.w.children(func(o xml.StartElement) error { return p.value(o, "_object", "name", p.objects) })
		case "states":
			return p.w.children(func(s xml.StartElement) error { return p.value(s, "_state", "evr", p.states) })
		}
		return p.w.skip()
	})
}

func (p *ovalResults) definition(e xml.StartElement) error {
	d := definition{id: attr(e, "id"), class: attr(e, "class")}
	if d.class != classVulnerability && d.class != classPatch {
		return p.w.skip()
	}
	if len(p.definitions) >= MaxEntries {
		return p.w.fail(ErrLimit, "too many definitions")
	}
	err := p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "metadata":
			return p.metadata(&d)
		case "criteria":
			return p.criteria(e, &d, false)
		}
		return p.w.skip()
	})
	p.definitions = append(p.definitions, d)
	return err
}

func (p *ovalResults) metadata(d *definition) error {
	return p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "title":
			return p.w.into(&d.title)
		case "reference":
			ids := &d.ids
			if attr(e, "source") == oval.SourceApplied {
				ids = &d.applied
			}
			if err := addID(p.w, ids, attr(e, "ref_id")); err != nil {
				return err
			}
			return p.w.skip()
		case "advisory":
			return p.w.under("severity", func(xml.StartElement) error {
				word, err := p.w.text()
				d.severity = severity(word)
				return err
			})
		}
		return p.w.skip()
	})
}

// criteria collects the tests of a definition. A test below an odd number of
// negations counts the other way round.
func (p *ovalResults) criteria(e xml.StartElement, d *definition, negated bool) error {
	negated = negated != (attr(e, "negate") == "true")
	return p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "criteria":
			return p.criteria(e, d, negated)
		case "criterion":
			if len(d.tests) >= MaxEntries {
				return p.w.fail(ErrLimit, "too many tests in one definition")
			}
			d.tests = append(d.tests, criterion{attr(e, "test_ref"), negated != (attr(e, "negate") == "true")})
		}
		return p.w.skip()
	})
}

// packageTest reads a test of an installed package of any packaging system
// that OVAL knows; other tests are skipped.
func (p *ovalResults) packageTest(e xml.StartElement) error {
	if e.Name.Local != "dpkginfo_test" && e.Name.Local != "rpminfo_test" {
		return p.w.skip()
	}
	var t packageTest
	err := p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "object":
			t.object = attr(e, "object_ref")
		case "state":
			t.state = attr(e, "state_ref")
		}
		return p.w.skip()
	})
	if err != nil {
		return err
	}
	return keep(p.w, p.tests, attr(e, "id"), t)
}

// value reads one field of a package object or state into table. A version
// counts only where it is the upper bound of what is vulnerable.
func (p *ovalResults) value(e xml.StartElement, suffix, field string, table map[string]string) error {
	if kind, ok := strings.CutSuffix(e.Name.Local, suffix); !ok || kind != "dpkginfo" && kind != "rpminfo" {
		return p.w.skip()
	}
	var value string
	err := p.w.under(field, func(f xml.StartElement) error {
		if op := attr(f, "operation"); field == "evr" && op != "less than" {
			return p.w.skip()
		}
		return p.w.into(&value)
	})
	if err != nil || value == "" {
		return err
	}
	return keep(p.w, table, attr(e, "id"), value)
}

// system reads the results of one system.
func (p *ovalResults) system() error {
	p.systems++
	return p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "definitions":
			return p.w.under("definition", func(d xml.StartElement) error {
				if err := keep(p.w, p.verdicts, attr(d, "definition_id"), attr(d, "result")); err != nil {
					return err
				}
				return p.w.skip()
			})
		case "tests":
			return p.w.under("test", p.outcome)
		case "oval_system_characteristics":
			return p.characteristics()
		}
		return p.w.skip()
	})
}

func (p *ovalResults) outcome(e xml.StartElement) error {
	o := outcome{result: attr(e, "result")}
	err := p.w.under("tested_item", func(i xml.StartElement) error {
		if len(o.items) >= MaxEntries {
			return p.w.fail(ErrLimit, "too many items in one test")
		}
		o.items = append(o.items, attr(i, "item_id"))
		return p.w.skip()
	})
	if err != nil {
		return err
	}
	return keep(p.w, p.outcomes, attr(e, "test_id"), o)
}

func (p *ovalResults) characteristics() error {
	return p.w.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "system_info":
			return p.w.children(func(e xml.StartElement) error {
				switch e.Name.Local {
				case "primary_host_name":
					return p.w.into(&p.report.Host)
				case "os_name":
					return p.w.into(&p.report.OS)
				case "os_version":
					return p.w.into(&p.report.OSVersion)
				}
				return p.w.skip()
			})
		case "system_data":
			return p.w.children(p.item)
		}
		return p.w.skip()
	})
}

func (p *ovalResults) item(e xml.StartElement) error {
	if e.Name.Local != "dpkginfo_item" && e.Name.Local != "rpminfo_item" {
		return p.w.skip()
	}
	var i item
	err := p.w.children(func(f xml.StartElement) error {
		switch f.Name.Local {
		case "name":
			return p.w.into(&i.name)
		case "evr":
			return p.w.into(&i.version)
		}
		return p.w.skip()
	})
	if err != nil {
		return err
	}
	return keep(p.w, p.items, attr(e, "id"), i)
}
