package web

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
)

// How a job's page is kept up to date.
const (
	streamPause = 200 * time.Millisecond // between two messages at least: a burst of events becomes one
	streamBeat  = 15 * time.Second       // without news: a comment keeps the connection, and the session is looked at
	streamWrite = 10 * time.Second       // a browser that does not read for so long is let go
)

// jobStream sends a job's page again, as server-sent events, whenever something
// happened, until the job has ended, the browser leaves or the session ends.
func (s *site) jobStream(v *visit) error {
	j, err := s.jobDetail(v)
	if err != nil {
		return err
	}
	out := http.NewResponseController(v.w)
	v.w.Header().Set("Content-Type", "text/event-stream")
	v.w.Header().Set("X-Accel-Buffering", "no")
	v.w.WriteHeader(http.StatusOK)

	defer func() {
		// The connection may serve other pages next. Where it cannot be set it was never set.
		_ = out.SetWriteDeadline(time.Time{})
	}()

	news, stop := s.svc.Watch(v.who)
	defer stop()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	pause := time.NewTimer(streamPause)
	defer pause.Stop()

	for {
		// Look again after Watch has begun: what happened in between is not lost.
		if j, err = s.jobDetail(v); err != nil {
			return s.endStream(v, err)
		}
		message, err := s.jobNews(v, j)
		if err != nil {
			return s.endStream(v, err)
		}
		if err := send(v.w, out, message); err != nil {
			return nil // the browser went away
		}
		if j.State.Final() {
			return nil
		}
		pause.Reset(streamPause)
		select {
		case <-v.context().Done():
			return nil
		case <-pause.C:
		}
		for waiting := true; waiting; {
			select {
			case <-v.context().Done():
				return nil
			case <-news:
				waiting = false
			case <-beat.C:
				if _, err := s.svc.Session(v.context(), v.secret); err != nil {
					return s.endStream(v, err)
				}
				if err := send(v.w, out, []byte(": nothing new\n\n")); err != nil {
					return nil
				}
			}
		}
	}
}

// endStream ends a stream after a failure. The answer has begun, so the browser
// cannot be told; it asks again, and the log has the reason.
func (s *site) endStream(v *visit, err error) error {
	if v.context().Err() == nil && !errors.Is(err, access.ErrCredentials) {
		s.log.WarnContext(v.context(), "a job's stream ended early", "path", v.r.URL.Path, "err", err)
	}
	return nil
}

// jobNews is the live part of a job's page, as it is now.
func (s *site) jobNews(v *visit, j jobView) ([]byte, error) {
	running, err := s.svc.Jobs(v.context(), v.who, platform.JobFilter{List: platform.List{Limit: 1}, State: rollout.JobRunning})
	if err != nil {
		return nil, err
	}
	return jobMessage(v.context(), j, int(running.Total))
}

// jobMessage is the news of a job as one server-sent event. Its id is the newest
// event that it shows. When the job has ended, a second event closes the stream.
func jobMessage(ctx context.Context, j jobView, running int) ([]byte, error) {
	var body bytes.Buffer
	if err := jobNews(j, running).Render(ctx, &body); err != nil {
		return nil, err
	}
	var message bytes.Buffer
	message.WriteString("id: " + strconv.FormatInt(j.lastEvent(), 10) + "\n")
	for line := range bytes.Lines(body.Bytes()) {
		message.WriteString("data: ")
		message.Write(bytes.TrimRight(line, "\r\n"))
		message.WriteByte('\n')
	}
	message.WriteByte('\n')
	if j.State.Final() {
		message.WriteString("event: ended\ndata: " + string(j.State) + "\n\n")
	}
	return message.Bytes(), nil
}

func send(w http.ResponseWriter, out *http.ResponseController, message []byte) error {
	if err := out.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	return out.Flush()
}
