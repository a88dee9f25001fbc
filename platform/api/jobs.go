package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
)

// beat keeps a stream of events from looking dead.
const beat = 15 * time.Second

// writeTime is after how long a reader that takes nothing is let go.
const writeTime = 10 * time.Second

type jobFilter struct {
	Piece
	Kind  string `query:"kind" enum:"scan,livepatch,revert"`
	State string `query:"state" enum:"running,done,failed,stopped"`
}

type jobID struct {
	ID int64 `path:"id" minimum:"1"`
}

type eventFilter struct {
	After  int64  `query:"after" minimum:"-1" default:"-1" doc:"events with higher ids, oldest first; -1: the newest"`
	Job    int64  `query:"job" minimum:"0"`
	Server string `query:"server" maxLength:"200" doc:"System ID"`
	Limit  int    `query:"limit" minimum:"0" maximum:"500" doc:"0: 50"`
}

func (s *server) registerJobs() {
	add(s, operation{method: http.MethodPost, path: "/scans", id: "scan", summary: "Scan for vulnerabilities"},
		func(ctx context.Context, who access.Subject, in *body[platform.ScanRequest]) (fleet.Job, error) {
			return s.service.ScanServers(ctx, who, in.Body)
		})
	add(s, operation{method: http.MethodPost, path: "/livepatch/plan", id: "plan-livepatch", summary: "What LivePatch found vulnerabilities would do"},
		func(ctx context.Context, who access.Subject, in *body[platform.PatchRequest]) (platform.Plan, error) {
			return s.service.PlanLivePatches(ctx, who, in.Body)
		})
	add(s, operation{method: http.MethodPost, path: "/livepatch", id: "livepatch", summary: "LivePatch found vulnerabilities"},
		func(ctx context.Context, who access.Subject, in *body[platform.PatchRequest]) (fleet.Job, error) {
			return s.service.LivePatchFound(ctx, who, in.Body)
		})
	add(s, operation{method: http.MethodPost, path: "/revert", id: "revert", summary: "Take a live patch off again"},
		func(ctx context.Context, who access.Subject, in *body[platform.RevertRequest]) (fleet.Job, error) {
			return s.service.CreateRevertJob(ctx, who, in.Body)
		})
	add(s, operation{method: http.MethodGet, path: "/jobs", id: "jobs", summary: "Jobs, newest first"},
		func(ctx context.Context, who access.Subject, in *jobFilter) (fleet.Page[fleet.Job], error) {
			page, err := s.service.Jobs(ctx, who, platform.JobFilter{List: in.piece(), Kind: fleet.JobKind(in.Kind), State: rollout.JobState(in.State)})
			page.Items, err = items(page.Items, err)
			return page, err
		})
	add(s, operation{method: http.MethodGet, path: "/jobs/{id}", id: "job", summary: "Everything about one job: stages, tasks, security checks, results"},
		func(ctx context.Context, who access.Subject, in *jobID) (platform.JobDetail, error) {
			return s.service.Job(ctx, who, in.ID)
		})
	act(s, operation{method: http.MethodPost, path: "/jobs/{id}/stop", id: "stop-job", summary: "Start no further task of a job"},
		func(ctx context.Context, who access.Subject, in *jobID) error {
			return s.service.StopJob(ctx, who, in.ID)
		})
	add(s, operation{method: http.MethodGet, path: "/events", id: "events", summary: "What happened; /events/stream has the same as server-sent events"},
		func(ctx context.Context, who access.Subject, in *eventFilter) ([]fleet.Event, error) {
			return items(s.service.Events(ctx, who, in.After, platform.EventFilter{Job: in.Job, Server: in.Server, Limit: in.Limit}))
		})
}

// stream sends events as they come (text/event-stream), from the query's after
// or the header Last-Event-ID on; without both, only new ones.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	c := callerOf(r.Context())
	if !c.known {
		s.write(w, r, s.refusal(r.Context(), access.ErrCredentials))
		return
	}
	filter := platform.EventFilter{Server: r.FormValue("server"), Limit: platform.MaxPage}
	filter.Job, _ = strconv.ParseInt(r.FormValue("job"), 10, 64) // what is no number narrows nothing
	changes, end := s.service.Watch(c.subject)
	defer end()
	after, err := s.from(r, c.subject)
	if err != nil {
		s.write(w, r, s.refusal(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	write := func(text string) error {
		if err := flush.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		_, err := io.WriteString(w, text)
		return err
	}
	defer func() {
		// The connection may serve other requests next. Where it cannot be set it was never set.
		_ = flush.SetWriteDeadline(time.Time{})
	}()
	for {
		// Somebody who signed out, or whose token was revoked, hears nothing more.
		if now, err := s.identify(r); err != nil || !now.known {
			return
		}
		events, err := s.service.Events(r.Context(), c.subject, after, filter)
		if err != nil {
			return // the reader comes back with the id it has
		}
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil {
				return
			}
			if err := write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, data)); err != nil {
				return
			}
			after = e.ID
		}
		if flush.Flush() != nil {
			return
		}
		if len(events) == filter.Limit {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-changes:
		case <-tick.C:
			if err := write(": still here\n\n"); err != nil {
				return
			}
		}
	}
}

// from returns the id after which a stream starts.
func (s *server) from(r *http.Request, who access.Subject) (int64, error) {
	for _, text := range []string{r.Header.Get("Last-Event-ID"), r.FormValue("after")} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	last, err := s.service.Events(r.Context(), who, -1, platform.EventFilter{Limit: 1})
	if err != nil || len(last) == 0 {
		return 0, err
	}
	return last[0].ID, nil
}
