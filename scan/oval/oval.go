// Package oval writes OVAL definitions that see live patches: a vulnerability
// is there when the package is older than its fix and the agent's list of
// covered identifiers does not name it. OpenSCAP and every tool built on it
// read them.
//
// The package is pure. It must not know where scanners or lists are.
package oval

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on one document. Lengths are bytes.
const (
	MaxVulnerabilities = 10_000
	MaxText            = 4096
)

// Sources of references in the definitions.
const (
	SourceCVE      = "CVE"
	SourceLivemend = "LIVEMEND" // identifiers that are no CVE
	// SourceApplied marks a definition that is true when a live patch is in
	// force. Without it a definition of class patch means the opposite: a patch
	// that is missing.
	SourceApplied = "LIVEMEND-APPLIED"
)

// ErrInput is wrapped by every error about what is to be described.
var ErrInput = errors.New("this cannot be described in OVAL")

// Vulnerability is one vulnerability of one Debian package.
type Vulnerability struct {
	ID           string // CVE-2026-1234 or another authority's identifier
	Title        string // for people
	Severity     string // critical, high, medium, low or ""
	Package      string // binary package
	FixedVersion string // first Debian version without the vulnerability
}

// Document describes vulnerabilities.
type Document struct {
	Time            time.Time // when it was written
	List            string    // absolute path of the list of covered identifiers, one per line
	Vulnerabilities []Vulnerability
}

var (
	identifier  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,199}$`)
	version     = regexp.MustCompile(`^(?:([0-9]+):)?[0-9A-Za-z][0-9A-Za-z.+~-]{0,199}$`)
)

func (d *Document) check() error {
	bad := func(what, value string) error { return fmt.Errorf("%w: %s %q", ErrInput, what, value) }
	if !path.IsAbs(d.List) || path.Clean(d.List) != d.List || !plain(d.List) {
		return bad("the list's path", d.List)
	}
	if len(d.Vulnerabilities) == 0 || len(d.Vulnerabilities) > MaxVulnerabilities {
		return fmt.Errorf("%w: %d vulnerabilities, of 1 to %d", ErrInput, len(d.Vulnerabilities), MaxVulnerabilities)
	}
	for _, v := range d.Vulnerabilities {
		switch {
		case !identifier.MatchString(v.ID):
			return bad("the identifier", v.ID)
		case !packageName.MatchString(v.Package):
			return bad("the package", v.Package)
		case !version.MatchString(v.FixedVersion):
			return bad("the fixed version", v.FixedVersion)
		case !plain(v.Title):
			return bad("the title", v.Title)
		case !plain(v.Severity):
			return bad("the severity", v.Severity)
		}
	}
	return nil
}

// plain reports whether s can stand in XML and be shown.
func plain(s string) bool {
	return len(s) <= MaxText && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// Write returns the document as OVAL 5.11 definitions: for each vulnerability
// one definition of class vulnerability and one of class patch, which says that
// a live patch covers it. The same input gives the same bytes.
func (d *Document) Write() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, header, d.Time.UTC().Format("2006-01-02T15:04:05"))
	section := func(name string, f func(n int, v *Vulnerability)) {
		fmt.Fprintf(&b, "  <%s>\n", name)
		for i := range d.Vulnerabilities {
			f(i+1, &d.Vulnerabilities[i])
		}
		fmt.Fprintf(&b, "  </%s>\n", name)
	}
	section("definitions", func(n int, v *Vulnerability) { writeDefinitions(&b, n, v) })
	section("tests", func(n int, v *Vulnerability) {
		fmt.Fprintf(&b, tests, n, text(v.Package+" is earlier than "+evr(v.FixedVersion)), text("a live patch covers "+v.ID))
	})
	section("objects", func(n int, v *Vulnerability) {
		fmt.Fprintf(&b, objects, n, text(v.Package), text(d.List), text("^"+regexp.QuoteMeta(v.ID)+"$"))
	})
	section("states", func(n int, v *Vulnerability) { fmt.Fprintf(&b, states, n, text(evr(v.FixedVersion))) })
	b.WriteString("</oval_definitions>\n")
	return b.Bytes(), nil
}

func writeDefinitions(b *bytes.Buffer, n int, v *Vulnerability) {
	source := SourceLivemend
	if strings.HasPrefix(v.ID, "CVE-") {
		source = SourceCVE
	}
	title := v.Title
	if title == "" {
		title = v.ID + " in " + v.Package
	}
	severity := ""
	if v.Severity != "" {
		severity = "\n        <advisory><severity>" + text(v.Severity) + "</severity></advisory>"
	}
	fmt.Fprintf(b, definitions, strconv.Itoa(n), text(title), source, text(v.ID), severity, SourceApplied)
}

// evr writes the epoch of a Debian version, which OVAL wants to see.
func evr(v string) string {
	if strings.Contains(v, ":") {
		return v
	}
	return "0:" + v
}

// text escapes s for XML, in an element or in an attribute.
func text(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a strings.Builder never fails
	}
	return b.String()
}

const header = `<?xml version="1.0" encoding="UTF-8"?>
<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5" xmlns:ind="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent" xmlns:linux="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux">
  <generator>
    <oval:product_name>Livemend</oval:product_name>
    <oval:schema_version>5.11.1</oval:schema_version>
    <oval:timestamp>%s</oval:timestamp>
  </generator>
`

const definitions = `    <definition id="oval:dev.livemend.vulnerability:def:%[1]s" version="1" class="vulnerability">
      <metadata>
        <title>%[2]s</title>
        <affected family="unix"/>
        <reference source="%[3]s" ref_id="%[4]s"/>
        <description>%[2]s</description>%[5]s
      </metadata>
      <criteria operator="AND">
        <criterion test_ref="oval:dev.livemend.package:tst:%[1]s" comment="the package is earlier than its fix"/>
        <criterion test_ref="oval:dev.livemend.list:tst:%[1]s" negate="true" comment="a live patch covers it"/>
      </criteria>
    </definition>
    <definition id="oval:dev.livemend.applied:def:%[1]s" version="1" class="patch">
      <metadata>
        <title>a live patch covers %[4]s</title>
        <affected family="unix"/>
        <reference source="%[6]s" ref_id="%[4]s"/>
        <description>true while a live patch for %[4]s is in force on this system</description>
      </metadata>
      <criteria>
        <criterion test_ref="oval:dev.livemend.list:tst:%[1]s" comment="a live patch covers it"/>
      </criteria>
    </definition>
`

const tests = `    <linux:dpkginfo_test id="oval:dev.livemend.package:tst:%[1]d" version="1" check="at least one" comment="%[2]s">
      <linux:object object_ref="oval:dev.livemend.package:obj:%[1]d"/>
      <linux:state state_ref="oval:dev.livemend.package:ste:%[1]d"/>
    </linux:dpkginfo_test>
    <ind:textfilecontent54_test id="oval:dev.livemend.list:tst:%[1]d" version="1" check="all" check_existence="at_least_one_exists" comment="%[3]s">
      <ind:object object_ref="oval:dev.livemend.list:obj:%[1]d"/>
    </ind:textfilecontent54_test>
`

const objects = `    <linux:dpkginfo_object id="oval:dev.livemend.package:obj:%[1]d" version="1">
      <linux:name>%[2]s</linux:name>
    </linux:dpkginfo_object>
    <ind:textfilecontent54_object id="oval:dev.livemend.list:obj:%[1]d" version="1">
      <ind:filepath>%[3]s</ind:filepath>
      <ind:pattern operation="pattern match">%[4]s</ind:pattern>
      <ind:instance datatype="int">1</ind:instance>
    </ind:textfilecontent54_object>
`

const states = `    <linux:dpkginfo_state id="oval:dev.livemend.package:ste:%[1]d" version="1">
      <linux:evr datatype="debian_evr_string" operation="less than">%[2]s</linux:evr>
    </linux:dpkginfo_state>
`
