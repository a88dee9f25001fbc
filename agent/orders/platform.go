package orders

import (
	"context"
	"errors"
	"strconv"
	"time"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/wire"
)

// Platform is the source of files and the hearer of progress at the other end
// of a connection. It is believed in nothing.
type Platform struct{ Peer *channel.Peer }

const (
	fetchTime    = 2 * time.Minute  // one metadata file or one piece of a target
	sayTime      = 10 * time.Second // progress and alarms
	maxDownload  = 64 << 20         // bytes of a target
	directorName = ".director-root.json"
)

// Fetch implements client.Fetcher.
func (p Platform) Fetch(ctx context.Context, name string, max int64) ([]byte, error) {
	var out []byte
	for {
		r := wire.Range{Path: name, Off: int64(len(out)), Len: wire.MaxChunk}
		piece, err := p.piece(ctx, wire.Metadata, r)
		var answer *wire.Error
		if errors.As(err, &answer) && answer.Code == wire.CodeNotFound {
			return nil, errors.Join(client.ErrNotFound, err)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, piece...)
		if int64(len(out)) > max {
			return nil, &trust.Refusal{What: name, Err: trust.ErrLength, Detail: "more than " + strconv.FormatInt(max, 10) + " bytes"}
		}
		if int64(len(piece)) < r.Len {
			return out, nil
		}
	}
}

// download returns the bytes of a target after comparing them with what was
// signed. It never holds more than was signed.
func (p Platform) download(ctx context.Context, t trust.Target) ([]byte, error) {
	if t.Length > maxDownload {
		return nil, &trust.Refusal{What: "target " + t.Path, Err: trust.ErrLength, Detail: "larger than any target may be"}
	}
	check := trust.NewContent(t)
	out := make([]byte, 0, t.Length)
	for int64(len(out)) < t.Length {
		want := min(t.Length-int64(len(out)), wire.MaxChunk)
		piece, err := p.piece(ctx, wire.Target, wire.Range{Path: t.Path, SHA256: t.SHA256, Off: int64(len(out)), Len: want})
		if err != nil {
			return nil, err
		}
		if len(piece) == 0 {
			break // Close says that bytes are missing
		}
		if _, err := check.Write(piece); err != nil {
			return nil, err
		}
		out = append(out, piece...)
	}
	return out, check.Close()
}

func (p Platform) piece(ctx context.Context, m wire.Method, r wire.Range) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, fetchTime)
	defer stop()
	return p.Peer.Call(ctx, m, r.Encode())
}

// progress and alarm are said once; nothing waits for them to be heard.
func (p Platform) progress(ctx context.Context, s wire.Step) { p.say(ctx, wire.Progress, s.Encode()) }
func (p Platform) alarm(ctx context.Context, a wire.Attack)  { p.say(ctx, wire.Alarm, a.Encode()) }

func (p Platform) say(ctx context.Context, m wire.Method, body []byte) {
	ctx, stop := context.WithTimeout(ctx, sayTime)
	defer stop()
	_, _ = p.Peer.Call(ctx, m, body) // may be lost: the signed report says the same
}

// lost reports whether err means that the connection, and not the order, is
// the trouble.
func lost(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, channel.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}

// refreshDirectorRoot returns the director root in force, after accepting the
// newer ones that the platform has. Each is durable before the next is asked for.
func (x *Executor) refreshDirectorRoot(ctx context.Context, p Platform) (*trust.DirectorRoot, error) {
	root, err := x.directorRoot()
	if err != nil {
		return nil, err
	}
	for range trust.MaxRotations {
		b, err := p.Fetch(ctx, strconv.FormatInt(root.Version+1, 10)+directorName, trust.MaxRoot)
		var answer *wire.Error
		if errors.As(err, &answer) {
			break // there is none; one that is kept from us too long is noticed by expiry
		}
		if err != nil {
			return nil, err
		}
		next, err := trust.UpdateDirectorRoot(root, b)
		if err != nil {
			return nil, err
		}
		if err := x.Store.SetTrusted(state.DirectorRoot, b); err != nil {
			return nil, err
		}
		root = next
	}
	return root, nil
}
