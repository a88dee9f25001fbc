package wire

import "livemend.dev/livemend/internal/cjson"

// reportType marks a signed report, so that no other signed document of the
// agent can be taken for one.
const reportType = "report"

// Value returns r as the object that is signed.
func (r Report) Value() cjson.Value {
	processes := make([]cjson.Value, len(r.Processes))
	for i, p := range r.Processes {
		processes[i] = cjson.Object(
			cjson.F("pid", cjson.Int(p.PID)),
			cjson.F("start", cjson.Int(p.Start)),
			cjson.F("command", cjson.String(p.Command)),
			cjson.F("outcome", cjson.String(string(p.Outcome))),
			cjson.F("reason", cjson.String(p.Reason)),
			cjson.F("threads", cjson.Int(p.Threads)),
			cjson.F("stop_ns", cjson.Int(p.StopNS)))
	}
	return cjson.Object(
		cjson.F("_type", cjson.String(reportType)),
		cjson.F("system_id", cjson.String(r.SystemID)),
		cjson.F("task", cjson.String(r.Task)),
		cjson.F("action", cjson.String(r.Action)),
		cjson.F("manifest", cjson.String(r.Manifest)),
		cjson.F("path", cjson.String(r.Path)),
		cjson.F("outcome", cjson.String(string(r.Outcome))),
		cjson.F("reason", cjson.String(r.Reason)),
		cjson.F("text", cjson.String(r.Text)),
		cjson.F("processes", cjson.Array(processes...)),
		cjson.F("scan", hexText(r.Scan)),
		cjson.F("applied", appliedValue(r.Applied)),
		cjson.F("boot_id", cjson.String(r.BootID)),
		cjson.F("time", cjson.Int(r.Time)))
}

// ParseReport reads what Report.Value wrote, after the signature over it was
// checked.
func ParseReport(v cjson.Value) (Report, error) {
	c := cjson.Fields(v)
	if c.Text("_type", MaxID) != reportType {
		c.Fail("_type", cjson.ErrField)
	}
	r := Report{
		SystemID: c.Text("system_id", MaxID), Task: c.Text("task", MaxID), Action: c.Text("action", MaxID),
		Manifest: c.Text("manifest", MaxID), Path: c.Text("path", MaxMessage),
		Outcome: Outcome(c.Text("outcome", MaxID)), Reason: c.Text("reason", MaxID), Text: c.Text("text", MaxMessage),
		Scan: readHex(c, "scan", MaxReport), Applied: readApplied(c),
		BootID: c.Text("boot_id", MaxID), Time: c.Int("time"),
	}
	for _, v := range c.Items("processes", maxCount) {
		p := c.Nested("processes", v)
		r.Processes = append(r.Processes, ProcessResult{
			PID: p.Int("pid"), Start: p.Int("start"), Command: p.Text("command", MaxMessage),
			Outcome: Outcome(p.Text("outcome", MaxID)), Reason: p.Text("reason", MaxMessage),
			Threads: p.Int("threads"), StopNS: p.Int("stop_ns"),
		})
	}
	return r, c.Err()
}
