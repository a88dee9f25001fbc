package web

import (
	"errors"
	"io"
	"net/http"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// scansView is the page of scans.
type scansView struct {
	jobs     fleet.Page[fleet.Job]
	pager    pager
	contents []fleet.Content
	servers  []platform.ServerSummary
	total    int64 // servers
	now      time.Time
	operate  bool
}

// usable are the contents that a scan may use.
func (c scansView) usable() []fleet.Content {
	var out []fleet.Content
	for _, x := range c.contents {
		if !x.Withdrawn {
			out = append(out, x)
		}
	}
	return out
}

func (s *site) scans(v *visit) error {
	l := listed(v)
	view := scansView{now: s.now(), operate: v.can(access.Operator)}
	var err error
	if view.jobs, err = s.svc.Jobs(v.context(), v.who, platform.JobFilter{List: piece(v), Kind: fleet.ScanJob}); err != nil {
		return err
	}
	catalogue, err := s.svc.Catalogue(v.context(), v.who)
	if err != nil {
		return err
	}
	servers, err := s.svc.Servers(v.context(), v.who, platform.ServerFilter{List: platform.List{Limit: platform.MaxPage}})
	if err != nil {
		return err
	}
	view.contents, view.servers, view.total = catalogue.Contents, servers.Items, servers.Total
	view.pager = pager{list: l, shown: len(view.jobs.Items), total: view.jobs.Total, next: view.jobs.Next,
		further: v.r.FormValue("after") != "", one: "scan", many: "scans"}
	return s.show(v, "Scans", "/scans", scansPage(view))
}

// scan is "Scan for vulnerabilities".
func (s *site) scan(v *visit) error {
	servers, err := picked(v, "server")
	if err != nil {
		return err
	}
	job, err := s.svc.ScanServers(v.context(), v.who, platform.ScanRequest{Servers: servers, Content: v.text("content")})
	if err != nil {
		return err
	}
	s.sendTo(v, jobAddress(job.ID))
	return nil
}

// maxUploadForm bounds an uploaded report with the form around it.
const maxUploadForm = platform.MaxUpload + 64<<10

// uploadScan takes in a report that somebody's scanner wrote.
func (s *site) uploadScan(v *visit) error {
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxUploadForm)
	file, _, err := v.r.FormFile("report")
	if err != nil {
		var over *http.MaxBytesError
		if errors.As(err, &over) {
			return &platform.Problem{Err: platform.ErrInput, Text: "The report is larger than " + size(platform.MaxUpload) + ". Nothing was taken in."}
		}
		return &platform.Problem{Err: platform.ErrInput, Text: "No report was chosen. Nothing was taken in. Choose a file and try again."}
	}
	report, err := io.ReadAll(io.LimitReader(file, platform.MaxUpload))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return &platform.Problem{Err: platform.ErrInput, Text: "The report could not be read to its end. Nothing was taken in. Try again."}
	}
	server := v.text("server")
	n, err := s.svc.ImportScan(v.context(), v.who, server, report)
	if err != nil {
		return err
	}
	s.say(v.w, "good", "The report is taken in: "+counted(n, "finding", "findings")+".")
	s.sendTo(v, address(serverAddress(server), "tab", "findings"))
	return nil
}
