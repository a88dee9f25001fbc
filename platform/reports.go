package platform

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/scan"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// Result takes in an agent's signed report. It returns nil after everything that
// follows from the report is durable; the same report again is no error.
func (p *Presence) Result(ctx context.Context, envelope []byte) error {
	report, err := p.open(ctx, envelope)
	if err != nil {
		return err
	}
	var after followUp
	err = p.s.db.InTx(ctx, func(tx *store.Tx) error {
		after = followUp{}
		return p.take(ctx, tx, report, envelope, &after)
	})
	if err == nil {
		p.s.follow(after)
	}
	return err
}

// open verifies a report with the server's identity key.
func (p *Presence) open(ctx context.Context, envelope []byte) (wire.Report, error) {
	value, err := trust.Open(envelope, p.server.IdentityKey)
	if err != nil {
		p.s.log.WarnContext(ctx, "a report's signature was refused", "server", p.server.ID, "error", err)
		return wire.Report{}, malformed("the report is not signed by this system's key; it was not stored")
	}
	report, err := wire.ParseReport(value)
	if err != nil {
		return wire.Report{}, malformed("the report cannot be read; it was not stored: " + err.Error())
	}
	if report.SystemID != p.server.ID {
		return wire.Report{}, &wire.Error{Code: wire.CodeRefused, Message: "the report is of another system; it was not stored"}
	}
	return report, nil
}

// take stores a verified report and what follows from it.
func (p *Presence) take(ctx context.Context, tx *store.Tx, report wire.Report, envelope []byte, after *followUp) error {
	s := p.s
	task, err := platformdb.TaskByID(ctx, tx, report.Task)
	if errors.Is(err, store.ErrNotFound) || err == nil && task.Server != p.server.ID {
		return &wire.Error{Code: wire.CodeNotFound, Message: "the report is about no task of this server; it was not stored"}
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(task.Manifest)
	if task.Issues == 0 || task.Issues == 1 && report.Manifest != hex.EncodeToString(sum[:]) {
		return &wire.Error{Code: wire.CodeRefused, Message: "the report answers an order that was not given; it was not stored"}
	}
	first, err := platformdb.InsertResult(ctx, tx, resultOf(report, envelope, s))
	if err != nil || !first {
		return err
	}
	// A report from before this connection may be older than the inventory that
	// the agent sent since, even from before a reboot: only that one counts then.
	if _, now := p.handed.Load(task.ID); now {
		if err := platformdb.ReplaceApplied(ctx, tx, p.server.ID, appliedOf(report.Applied, s.now())); err != nil {
			return err
		}
	}
	event := eventOf(report)
	if report.Action == string(trust.Scan) && report.Outcome == wire.Done {
		text, err := s.takeScan(ctx, tx, p.server, task.Job, task.Scanner, report.Scan)
		if errors.Is(err, errScan) {
			event = rollout.Event{Kind: rollout.WentWrong, Reason: err.Error()}
		} else if err != nil {
			return err
		} else if err := s.taskEvent(ctx, tx, task, "task", text, after); err != nil {
			return err
		}
	}
	server, err := platformdb.Server(ctx, tx, task.Organisation, task.Server) // its facts may be newer than the connection
	if err != nil {
		return err
	}
	if err := s.recompute(ctx, tx, server); err != nil {
		return err
	}
	changed, err := s.step(ctx, tx, &task, event, after)
	if err != nil || changed {
		return err
	}
	return s.taskEvent(ctx, tx, task, "task", "answered after the task had ended: "+string(report.Outcome), after)
}

func resultOf(r wire.Report, envelope []byte, s *Service) fleet.Result {
	out := fleet.Result{Task: r.Task, Outcome: string(r.Outcome), Reason: r.Reason, Text: r.Text, Manifest: r.Manifest,
		Processes: []fleet.Process{}, ReceivedAt: s.now(), Report: envelope}
	for _, p := range r.Processes {
		out.Processes = append(out.Processes, fleet.Process{PID: p.PID, Start: p.Start, Command: p.Command, Outcome: string(p.Outcome),
			Reason: p.Reason, Threads: p.Threads, StopNS: p.StopNS})
	}
	return out
}

// eventOf says what a report means for its task.
func eventOf(r wire.Report) rollout.Event {
	reason := r.Text
	if r.Reason != "" {
		reason = r.Reason + ": " + r.Text
	}
	switch r.Outcome {
	case wire.Done:
		return rollout.Event{Kind: rollout.Succeeded}
	case wire.Nothing:
		return rollout.Event{Kind: rollout.Succeeded, Reason: "nothing to do: " + r.Text}
	case wire.Refused:
		return rollout.Event{Kind: rollout.TurnedDown, Reason: reason}
	case wire.Partial:
		return rollout.Event{Kind: rollout.WentWrong, Reason: "some processes are not patched yet: " + reason}
	}
	return rollout.Event{Kind: rollout.WentWrong, Reason: reason}
}

// errScan says that a scanner's report cannot be used.
var errScan = errors.New("the scanner's report cannot be read")

// takeScan stores the findings of a packed report and says what it brought.
func (s *Service) takeScan(ctx context.Context, tx *store.Tx, server fleet.Server, job int64, scanner string, packed []byte) (string, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errScan, err)
	}
	report, err := scan.Parse(io.LimitReader(unpacked, scan.MaxReport+1))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errScan, err)
	}
	open, err := s.storeScan(ctx, tx, server, job, report)
	return fmt.Sprintf("%s reports %s", scanner, plural(open, "open finding", "open findings")), err
}

// storeScan stores what one report says and returns how many findings are open.
func (s *Service) storeScan(ctx context.Context, tx *store.Tx, server fleet.Server, job int64, report *scan.Report) (int, error) {
	before, err := platformdb.Findings(ctx, tx, server.ID)
	if err != nil {
		return 0, err
	}
	type name struct{ definition, cve, component string }
	was := map[name]bool{}
	for _, f := range before {
		if f.Scanner == report.Scanner {
			was[name{f.Definition, f.CVE, f.Component}] = f.Open
		}
	}
	var findings []fleet.Finding
	open := 0
	for _, f := range report.Findings {
		ids := f.IDs
		if len(ids) == 0 {
			ids = []string{f.Definition}
		}
		for _, id := range ids {
			wasOpen, known := was[name{f.Definition, id, f.Component}]
			// Where the scanner could not tell, its last word stays.
			isOpen := f.State == scan.Vulnerable || f.State == scan.Unknown && wasOpen
			if !isOpen && !known {
				continue // looked at and never there: nothing to keep
			}
			if isOpen {
				open++
			}
			findings = append(findings, fleet.Finding{Scanner: report.Scanner, Definition: f.Definition, CVE: id, Component: f.Component,
				Installed: f.Installed, Fixed: f.Fixed, Severity: f.Severity, Title: f.Title, Open: isOpen, Job: job, SeenAt: s.now()})
		}
	}
	return open, platformdb.PutFindings(ctx, tx, server.ID, report.Scanner, findings)
}

// ImportScan takes in a scanner's report for one server and returns how many
// findings in it are open.
func (s *Service) ImportScan(ctx context.Context, who access.Subject, server string, report []byte) (int, error) {
	if err := who.Require(access.Operator); err != nil {
		return 0, err
	}
	if len(report) > MaxUpload {
		return 0, problem(ErrInput, "A report has at most %d bytes. Nothing was changed.", MaxUpload)
	}
	parsed, err := scan.Parse(bytes.NewReader(report))
	if err != nil {
		return 0, &Problem{Err: fmt.Errorf("%w: %w", ErrInput, err), Text: "The report cannot be read (" + err.Error() + "). Nothing was changed; upload the results file of OpenSCAP."}
	}
	open := 0
	err = s.deed(ctx, who, "import.scan", server, "imported a report of "+parsed.Scanner, "server", func(tx *store.Tx) error {
		row, err := platformdb.Server(ctx, tx, who.Organisation, server)
		if err != nil {
			return missing(err, "server")
		}
		if open, err = s.storeScan(ctx, tx, row, 0, parsed); err != nil {
			return err
		}
		return s.recompute(ctx, tx, row)
	})
	return open, err
}
