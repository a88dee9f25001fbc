package wire

import (
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// maxCount bounds the length of a process list in a report.
const maxCount = 100_000

// parse reads b as one object and lets read take its fields.
func parse(b []byte, read func(c cjson.Cursor)) error {
	v, err := cjson.Parse(b)
	if err != nil {
		return err
	}
	c := cjson.Fields(v)
	read(c)
	return c.Err()
}

// Encode returns g as JSON.
func (g Greeting) Encode() []byte {
	return cjson.Object(
		cjson.F("version", cjson.Int(g.Version)),
		cjson.F("agent", cjson.String(g.Agent)),
		cjson.F("system_id", cjson.String(g.SystemID)),
		cjson.F("boot_id", cjson.String(g.BootID))).JSON()
}

// DecodeGreeting reads what Greeting.Encode wrote.
func DecodeGreeting(b []byte) (g Greeting, err error) {
	err = parse(b, func(c cjson.Cursor) {
		g = Greeting{Version: c.Int("version"), Agent: c.Text("agent", MaxID),
			SystemID: c.OptText("system_id", MaxID), BootID: c.OptText("boot_id", MaxID)}
	})
	return g, err
}

// Encode returns w as JSON.
func (w Welcome) Encode() []byte {
	return cjson.Object(
		cjson.F("version", cjson.Int(w.Version)),
		cjson.F("time", cjson.Int(w.Time)),
		cjson.F("known", cjson.Bool(w.Known))).JSON()
}

// DecodeWelcome reads what Welcome.Encode wrote.
func DecodeWelcome(b []byte) (w Welcome, err error) {
	err = parse(b, func(c cjson.Cursor) {
		w = Welcome{Version: c.Int("version"), Time: c.Int("time"), Known: c.Bool("known")}
	})
	return w, err
}

func (f Facts) value() cjson.Value {
	return cjson.Object(
		cjson.F("hostname", cjson.String(f.Hostname)),
		cjson.F("machine_id", cjson.String(f.MachineID)),
		cjson.F("os", cjson.String(f.OS)),
		cjson.F("os_version", cjson.String(f.OSVersion)),
		cjson.F("kernel", cjson.String(f.Kernel)),
		cjson.F("kernel_id", cjson.String(f.KernelID)),
		cjson.F("arch", cjson.String(f.Arch)))
}

func readFacts(c cjson.Cursor) Facts {
	return Facts{
		Hostname: c.Text("hostname", MaxID), MachineID: c.Text("machine_id", MaxID),
		OS: c.Text("os", MaxID), OSVersion: c.Text("os_version", MaxID),
		Kernel: c.Text("kernel", MaxID), KernelID: c.OptText("kernel_id", MaxID), Arch: c.Text("arch", MaxID),
	}
}

// Binary fields travel as lower-case hexadecimal.
func hexText(b []byte) cjson.Value { return cjson.String(hextext.Encode(b)) }

func readHex(c cjson.Cursor, name string, max int) []byte {
	b, ok := hextext.Decode(c.OptText(name, 2*max))
	if !ok {
		c.Fail(name, cjson.ErrField)
	}
	return b
}

// maxProof bounds a key or signature, bytes.
const maxProof = 128

// Encode returns e as JSON.
func (e Enrolment) Encode() []byte {
	return cjson.Object(
		cjson.F("facts", e.Facts.value()),
		cjson.F("credential", cjson.String(e.Credential)),
		cjson.F("key_proof", hexText(e.KeyProof)),
		cjson.F("identity_key", hexText(e.IdentityKey)),
		cjson.F("channel_key", hexText(e.ChannelKey)),
		cjson.F("identity_proof", hexText(e.Identity))).JSON()
}

// DecodeEnrolment reads what Enrolment.Encode wrote.
func DecodeEnrolment(b []byte) (e Enrolment, err error) {
	err = parse(b, func(c cjson.Cursor) {
		e = Enrolment{Facts: readFacts(c.Object("facts")), Credential: c.Text("credential", MaxID),
			KeyProof:    readHex(c, "key_proof", maxProof),
			IdentityKey: readHex(c, "identity_key", maxProof),
			ChannelKey:  readHex(c, "channel_key", maxProof),
			Identity:    readHex(c, "identity_proof", maxProof)}
	})
	return e, err
}

// Encode returns a as JSON.
func (a Admission) Encode() []byte {
	return cjson.Object(
		cjson.F("system_id", cjson.String(a.SystemID)),
		cjson.F("customer", cjson.String(a.Customer))).JSON()
}

// DecodeAdmission reads what Admission.Encode wrote.
func DecodeAdmission(b []byte) (a Admission, err error) {
	err = parse(b, func(c cjson.Cursor) {
		a = Admission{SystemID: c.Text("system_id", MaxID), Customer: c.OptText("customer", MaxMessage)}
	})
	return a, err
}

// Encode returns s as JSON.
func (s Snapshot) Encode() []byte {
	libs := make([]cjson.Value, len(s.Libraries))
	for i, l := range s.Libraries {
		libs[i] = cjson.Object(
			cjson.F("build_id", cjson.String(l.BuildID)),
			cjson.F("path", cjson.String(l.Path)),
			cjson.F("processes", cjson.Int(l.Processes)),
			cjson.F("deleted", cjson.Bool(l.Deleted)))
	}
	packages := make([]cjson.Value, len(s.Packages))
	for i, p := range s.Packages {
		packages[i] = cjson.Object(
			cjson.F("name", cjson.String(p.Name)),
			cjson.F("version", cjson.String(p.Version)),
			cjson.F("source", cjson.String(p.Source)))
	}
	return cjson.Object(
		cjson.F("facts", s.Facts.value()),
		cjson.F("boot_id", cjson.String(s.BootID)),
		cjson.F("libraries", cjson.Array(libs...)),
		cjson.F("packages", cjson.Array(packages...)),
		cjson.F("applied", appliedValue(s.Applied)),
		cjson.F("quarantined", QuarantinedValue(s.Quarantined)),
		cjson.F("kernel_halted", cjson.Bool(s.KernelHalted))).JSON()
}

// DecodeSnapshot reads what Snapshot.Encode wrote.
func DecodeSnapshot(b []byte) (s Snapshot, err error) {
	err = parse(b, func(c cjson.Cursor) {
		s = Snapshot{Facts: readFacts(c.Object("facts")), BootID: c.OptText("boot_id", MaxID)}
		for _, v := range c.Items("libraries", MaxLibs) {
			l := c.Nested("libraries", v)
			s.Libraries = append(s.Libraries, Library{BuildID: l.Text("build_id", MaxID), Path: l.Text("path", MaxMessage),
				Processes: l.Int("processes"), Deleted: l.Bool("deleted")})
		}
		for _, v := range c.Items("packages", MaxPackages) {
			p := c.Nested("packages", v)
			s.Packages = append(s.Packages, Package{Name: p.Text("name", MaxID), Version: p.Text("version", MaxID),
				Source: p.OptText("source", MaxID)})
		}
		s.Applied = readApplied(c)
		s.Quarantined = ReadQuarantined(c)
		s.KernelHalted = c.Has("kernel_halted") && c.Bool("kernel_halted")
	})
	return s, err
}

// QuarantinedValue returns list as JSON, the field quarantined wherever it is told.
func QuarantinedValue(list []Quarantined) cjson.Value {
	out := make([]cjson.Value, len(list))
	for i, q := range list {
		out[i] = cjson.Object(
			cjson.F("build_id", cjson.String(q.BuildID)),
			cjson.F("path", cjson.String(q.Path)),
			cjson.F("sha256", cjson.String(q.SHA256)),
			cjson.F("level", cjson.Int(q.Level)),
			cjson.F("reason", cjson.String(q.Reason)),
			cjson.F("time", cjson.Int(q.Time)))
	}
	return cjson.Array(out...)
}

// ReadQuarantined reads the field quarantined, which older documents have not.
func ReadQuarantined(c cjson.Cursor) (out []Quarantined) {
	if !c.Has("quarantined") {
		return nil
	}
	for _, v := range c.Items("quarantined", MaxQuarantined) {
		q := c.Nested("quarantined", v)
		out = append(out, Quarantined{BuildID: q.Text("build_id", MaxID), Path: q.Text("path", MaxMessage), SHA256: q.Text("sha256", MaxID), Level: q.Int("level"),
			Reason: q.Text("reason", MaxMessage), Time: q.Int("time")})
	}
	return out
}

func appliedValue(list []Applied) cjson.Value {
	out := make([]cjson.Value, len(list))
	for i, a := range list {
		out[i] = cjson.Object(
			cjson.F("path", cjson.String(a.Path)),
			cjson.F("sha256", cjson.String(a.SHA256)),
			cjson.F("level", cjson.Int(a.Level)),
			cjson.F("processes", cjson.Int(a.Processes)),
			cjson.F("cves", cjson.Strings(a.CVEs)))
	}
	return cjson.Array(out...)
}

func readApplied(c cjson.Cursor) []Applied {
	var out []Applied
	for _, v := range c.Items("applied", MaxLibs) {
		a := c.Nested("applied", v)
		out = append(out, Applied{Path: a.Text("path", MaxMessage), SHA256: a.Text("sha256", MaxID), Level: a.Int("level"),
			Processes: a.Int("processes"), CVEs: a.Texts("cves", MaxLibs, MaxID)})
	}
	return out
}

// Encode returns r as JSON.
func (r Range) Encode() []byte {
	return cjson.Object(
		cjson.F("path", cjson.String(r.Path)),
		cjson.F("sha256", cjson.String(r.SHA256)),
		cjson.F("off", cjson.Int(r.Off)),
		cjson.F("len", cjson.Int(r.Len))).JSON()
}

// DecodeRange reads what Range.Encode wrote. Off is not negative and Len is
// between 1 and MaxChunk.
func DecodeRange(b []byte) (r Range, err error) {
	err = parse(b, func(c cjson.Cursor) {
		r = Range{Path: c.Text("path", MaxMessage), SHA256: c.Text("sha256", MaxID), Off: c.Int("off"), Len: c.Int("len")}
		if r.Off < 0 || r.Len < 1 || r.Len > MaxChunk {
			c.Fail("len", cjson.ErrField)
		}
	})
	return r, err
}

// Encode returns s as JSON.
func (s Step) Encode() []byte {
	return cjson.Object(
		cjson.F("task", cjson.String(s.Task)),
		cjson.F("name", cjson.String(s.Name)),
		cjson.F("text", cjson.String(s.Text))).JSON()
}

// DecodeStep reads what Step.Encode wrote.
func DecodeStep(b []byte) (s Step, err error) {
	err = parse(b, func(c cjson.Cursor) {
		s = Step{Task: c.Text("task", MaxID), Name: c.Text("name", MaxID), Text: c.Text("text", MaxMessage)}
	})
	return s, err
}

// Encode returns a as JSON.
func (a Attack) Encode() []byte {
	return cjson.Object(cjson.F("kind", cjson.String(a.Kind)), cjson.F("text", cjson.String(a.Text))).JSON()
}

// DecodeAttack reads what Attack.Encode wrote.
func DecodeAttack(b []byte) (a Attack, err error) {
	err = parse(b, func(c cjson.Cursor) {
		a = Attack{Kind: c.Text("kind", MaxID), Text: c.Text("text", MaxMessage)}
	})
	return a, err
}
