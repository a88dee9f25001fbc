package patch

import "livemend.dev/livemend/internal/cjson"

// customName is the one member that Livemend adds to a target's custom object.
const customName = "livemend"

// The types of target that a portal's repository holds.
const (
	typePatch   = "patch"
	typeContent = "scan-content"
)

// Content describes a target that a scanner reads, such as OVAL definitions.
// Scanner content is signed like a patch: it decides what a root-started
// program looks at.
type Content struct {
	Scanner string // openscap
	Format  string // oval-definitions-5.11
	Title   string // for people
}

// Custom returns m as the custom object of its target.
func (m *Metadata) Custom() cjson.Value {
	fixes := make([]cjson.Value, len(m.Fixes))
	for i, f := range m.Fixes {
		fixes[i] = cjson.Object(
			cjson.F("cve", cjson.String(string(f.CVE))),
			cjson.F("severity", cjson.String(f.Severity)),
			cjson.F("component", cjson.String(f.Component)),
			cjson.F("distribution", cjson.String(f.Distribution)),
			cjson.F("fixed_version", cjson.String(f.FixedVersion)))
	}
	functions := make([]cjson.Value, len(m.Functions))
	for i, f := range m.Functions {
		functions[i] = cjson.Object(cjson.F("name", cjson.String(f.Name)), cjson.F("size", cjson.Int(f.Size)))
	}
	inputs := make([]cjson.Value, len(m.Provenance.Inputs))
	for i, in := range m.Provenance.Inputs {
		inputs[i] = cjson.Object(cjson.F("name", cjson.String(in.Name)), cjson.F("sha256", cjson.String(in.SHA256)))
	}
	return cjson.Object(cjson.F(customName, cjson.Object(
		cjson.F("type", cjson.String(typePatch)),
		cjson.F("id", cjson.String(m.ID)),
		cjson.F("kind", cjson.String(string(m.Kind))),
		cjson.F("build_id", cjson.String(string(m.Target.BuildID))),
		cjson.F("arch", cjson.String(m.Target.Arch)),
		cjson.F("release", cjson.String(m.Target.Release)),
		cjson.F("library", cjson.String(m.Target.Library)),
		cjson.F("level", cjson.Int(m.Level)),
		cjson.F("fixes", cjson.Array(fixes...)),
		cjson.F("supersedes", cjson.Strings(m.Supersedes)),
		cjson.F("requires", cjson.Strings(m.Requires)),
		cjson.F("description", cjson.String(m.Description)),
		cjson.F("functions", cjson.Array(functions...)),
		cjson.F("builder", cjson.String(m.Provenance.Builder)),
		cjson.F("compiler", cjson.String(m.Provenance.Compiler)),
		cjson.F("inputs", cjson.Array(inputs...)),
		cjson.F("waivers", cjson.Strings(m.Provenance.Waivers)))))
}

// ParseCustom reads the custom object of a target that holds a patch. It
// returns ErrNotPatch for a target of another type and an error that wraps
// ErrMetadata for a patch that is not well formed.
func ParseCustom(custom cjson.Value) (*Metadata, error) {
	inner, ok := custom.Get(customName)
	if !ok {
		return nil, ErrNotPatch
	}
	c := cjson.Fields(inner)
	if c.Text("type", MaxName) != typePatch {
		return nil, ErrNotPatch
	}
	m := &Metadata{
		ID:   c.Text("id", MaxName),
		Kind: Kind(c.Text("kind", MaxName)),
		Target: Target{
			BuildID: BuildID(c.Text("build_id", MaxName)),
			Arch:    c.Text("arch", MaxName),
			Release: c.OptText("release", MaxName),
			Library: c.OptText("library", MaxName),
		},
		Level:       c.Int("level"),
		Supersedes:  c.Texts("supersedes", MaxFixes, MaxName),
		Requires:    c.Texts("requires", MaxFixes, MaxName),
		Description: c.OptText("description", MaxText),
		Provenance: Provenance{
			Builder:  c.OptText("builder", MaxText),
			Compiler: c.OptText("compiler", MaxText),
			Waivers:  c.Texts("waivers", MaxInputs, MaxText),
		},
	}
	for _, v := range c.Items("fixes", MaxFixes) {
		f := c.Nested("fixes", v)
		m.Fixes = append(m.Fixes, Fix{
			CVE:          CVE(f.Text("cve", MaxName)),
			Severity:     f.OptText("severity", MaxName),
			Component:    f.OptText("component", MaxName),
			Distribution: f.OptText("distribution", MaxName),
			FixedVersion: f.OptText("fixed_version", MaxName),
		})
	}
	for _, v := range c.Items("functions", MaxFunctions) {
		f := c.Nested("functions", v)
		m.Functions = append(m.Functions, Function{Name: f.Text("name", MaxText), Size: f.Int("size")})
	}
	for _, v := range c.Items("inputs", MaxInputs) {
		in := c.Nested("inputs", v)
		m.Provenance.Inputs = append(m.Provenance.Inputs, Input{Name: in.Text("name", MaxText), SHA256: in.Text("sha256", MaxName)})
	}
	if err := c.Err(); err != nil {
		return nil, &MetadataError{ID: m.ID, Reason: err.Error()}
	}
	return m, m.Check()
}

// Custom returns c as the custom object of its target.
func (c *Content) Custom() cjson.Value {
	return cjson.Object(cjson.F(customName, cjson.Object(
		cjson.F("type", cjson.String(typeContent)),
		cjson.F("scanner", cjson.String(c.Scanner)),
		cjson.F("format", cjson.String(c.Format)),
		cjson.F("title", cjson.String(c.Title)))))
}

// ParseContent reads the custom object of a target that holds scanner content.
// ok is false for any other target.
func ParseContent(custom cjson.Value) (c Content, ok bool) {
	inner, found := custom.Get(customName)
	if !found {
		return Content{}, false
	}
	f := cjson.Fields(inner)
	if f.Text("type", MaxName) != typeContent {
		return Content{}, false
	}
	c = Content{Scanner: f.Text("scanner", MaxName), Format: f.Text("format", MaxName), Title: f.OptText("title", MaxText)}
	return c, f.Err() == nil
}
