package platform

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	portal "livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/wire"
)

// How much of a record the pages show at once.
const (
	lastJob      = math.MaxInt64
	recentJobs   = 5
	recentEvents = 20
	serverTasks  = 50
	jobEvents    = 200
)

// Servers lists servers by hostname.
func (s *Service) Servers(ctx context.Context, who access.Subject, f ServerFilter) (fleet.Page[ServerSummary], error) {
	page := fleet.Page[ServerSummary]{Items: []ServerSummary{}}
	if err := who.Require(access.Viewer); err != nil {
		return page, err
	}
	filter := platformdb.ServerFilter{Query: f.Query, State: f.State, Limit: pageLimit(f.Limit)}
	var err error
	if filter.AfterHost, filter.AfterID, err = splitKeyset(f.After); err != nil {
		return page, err
	}
	limit := filter.Limit
	for {
		rows, total, err := platformdb.Servers(ctx, s.db, who.Organisation, filter)
		if err != nil {
			return page, err
		}
		page.Total = total
		for _, server := range rows {
			filter.AfterHost, filter.AfterID = server.Hostname, server.ID
			server.Online = s.hub.online(server.ID)
			if f.Online == "online" && !server.Online || f.Online == "silent" && server.Online {
				continue
			}
			summary := ServerSummary{Server: server}
			if summary.States, err = platformdb.ServerStateCounts(ctx, s.db, server.ID); err != nil {
				return page, err
			}
			page.Items = append(page.Items, summary)
			if len(page.Items) == limit {
				break
			}
		}
		switch {
		case len(page.Items) == limit:
			if int64(limit) < page.Total {
				page.Next = keyset(filter.AfterHost, filter.AfterID)
			}
			return page, nil
		case len(rows) < filter.Limit:
			if f.Online != "" && f.After == "" {
				page.Total = int64(len(page.Items)) // who is connected is known to this process, not to the database
			}
			return page, nil
		}
	}
}

// keyset joins hostname and id into the Next of a list of servers.
func keyset(hostname, id string) string { return strconv.Quote(hostname) + id }

func splitKeyset(after string) (hostname, id string, err error) {
	if after == "" {
		return "", "", nil
	}
	quoted, err := strconv.QuotedPrefix(after)
	if err == nil {
		hostname, err = strconv.Unquote(quoted)
	}
	if err != nil {
		return "", "", problem(ErrInput, "The place to continue the list from is not valid. Start from the first page.")
	}
	return hostname, after[len(quoted):], nil
}

// Server returns everything about one server.
func (s *Service) Server(ctx context.Context, who access.Subject, id string) (ServerDetail, error) {
	var out ServerDetail
	if err := who.Require(access.Viewer); err != nil {
		return out, err
	}
	server, err := platformdb.Server(ctx, s.db, who.Organisation, id)
	if err != nil {
		return out, missing(err, "server")
	}
	server.Online = s.hub.online(id)
	out = ServerDetail{Server: server, Libraries: []fleet.Library{}, Packages: []fleet.Package{}, Quarantined: []fleet.Quarantined{}, Tasks: []fleet.Task{}}
	snapshot, err := platformdb.Inventory(ctx, s.db, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return out, err
	}
	if err == nil {
		inventory, err := wire.DecodeSnapshot(snapshot)
		if err != nil {
			return out, err
		}
		for _, l := range inventory.Libraries {
			out.Libraries = append(out.Libraries, fleet.Library(l))
		}
		for _, p := range inventory.Packages {
			out.Packages = append(out.Packages, fleet.Package(p))
		}
		out.KernelHalted = inventory.KernelHalted
		for _, q := range inventory.Quarantined {
			out.Quarantined = append(out.Quarantined, fleet.Quarantined{Path: q.Path, SHA256: q.SHA256, Level: q.Level, Reason: q.Reason, At: time.Unix(q.Time, 0).UTC()})
		}
	}
	if out.Applied, err = platformdb.Applied(ctx, s.db, id); err != nil {
		return out, err
	}
	if out.Coverage, _, err = platformdb.Coverage(ctx, s.db, who.Organisation, platformdb.CoverageFilter{Server: id, Limit: MaxSelected}); err != nil {
		return out, err
	}
	if out.Findings, err = platformdb.Findings(ctx, s.db, id); err != nil {
		return out, err
	}
	tasks, err := platformdb.ServerTasks(ctx, s.db, who.Organisation, id, serverTasks)
	if err != nil {
		return out, err
	}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, t.Task)
	}
	out.Events, err = platformdb.LastEvents(ctx, s.db, who.Organisation, 0, id, recentEvents)
	out.Applied, out.Coverage, out.Findings, out.Events = listed(out.Applied), listed(out.Coverage), listed(out.Findings), listed(out.Events)
	return out, err
}

// RemoveServer forgets a server here and frees its licence at the portal. What
// is applied on it stays applied.
func (s *Service) RemoveServer(ctx context.Context, who access.Subject, id string) error {
	if err := who.Require(access.Admin); err != nil {
		return err
	}
	server, err := platformdb.Server(ctx, s.db, who.Organisation, id)
	if err != nil {
		return missing(err, "server")
	}
	limited, stop := context.WithTimeout(ctx, portalTime)
	defer stop()
	err = s.portal.RemoveSystem(limited, id)
	var refusal *portal.Error
	if err != nil && !(errors.As(err, &refusal) && refusal.Status == http.StatusNotFound) {
		return portalProblem(err, "free the server's licence")
	}
	err = s.deed(ctx, who, "remove.server", id, "removed server "+server.Hostname, "server", func(tx *store.Tx) error {
		found, err := platformdb.DeleteServer(ctx, tx, who.Organisation, id)
		if err == nil && !found {
			return missing(store.ErrNotFound, "server")
		}
		return err
	})
	if err == nil {
		s.hub.dismiss(id)
	}
	return err
}

// Events returns events after an id, oldest first; after = -1 returns the
// newest ones, still oldest first.
func (s *Service) Events(ctx context.Context, who access.Subject, after int64, f EventFilter) ([]fleet.Event, error) {
	if err := who.Require(access.Viewer); err != nil {
		return nil, err
	}
	if after >= 0 {
		return platformdb.EventsAfter(ctx, s.db, who.Organisation, after, f.Job, f.Server, pageLimit(f.Limit))
	}
	events, err := platformdb.LastEvents(ctx, s.db, who.Organisation, f.Job, f.Server, pageLimit(f.Limit))
	slices.Reverse(events)
	return events, err
}
