package channel

import (
	"context"
	"errors"
	"sync"
	"time"

	"livemend.dev/livemend/wire"
)

// Handler answers one request. Its context ends when the asker gives up or the
// connection ends. An error that is a *wire.Error crosses the channel as it
// is; any other becomes CodeInternal without its text. Handlers run
// concurrently and must not keep body.
type Handler func(ctx context.Context, method wire.Method, body []byte) ([]byte, error)

// Timing says how a Peer notices that the other end is gone. Both ends send a
// ping every Ping and give up after Silence without anything.
type Timing struct {
	Ping    time.Duration
	Silence time.Duration
}

// DefaultTiming notices a dead peer within a minute and keeps address
// translators on the way from forgetting the connection.
var DefaultTiming = Timing{Ping: 15 * time.Second, Silence: 50 * time.Second}

// Peer carries requests over a Conn, both ways at a time. Serve must run for
// Call to work. All methods may be used concurrently; Serve only once.
type Peer struct {
	conn   *Conn
	timing Timing
	slots  chan struct{} // open calls
	done   chan struct{} // closed when Serve returns

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan frame
	handled map[uint32]context.CancelFunc
}

// NewPeer makes a Peer of c, which it owns from now on.
func NewPeer(c *Conn) *Peer { return NewPeerTiming(c, DefaultTiming) }

// NewPeerTiming is NewPeer with other timing; both ends must agree.
func NewPeerTiming(c *Conn, t Timing) *Peer {
	return &Peer{
		conn: c, timing: t,
		slots: make(chan struct{}, MaxCalls), done: make(chan struct{}),
		waiting: map[uint32]chan frame{}, handled: map[uint32]context.CancelFunc{},
	}
}

// Conn returns the connection below.
func (p *Peer) Conn() *Conn { return p.conn }

// Call sends a request and waits for its answer. A refusal of the other end is
// a *wire.Error. When ctx ends the other end is told to stop. ErrClosed means
// that it is unknown whether the other end handled the request.
func (p *Peer) Call(ctx context.Context, method wire.Method, body []byte) ([]byte, error) {
	if len(body) > wire.MaxFrame {
		return nil, errTooLarge
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, ErrClosed
	}
	defer func() { <-p.slots }()
	id, answer := p.expect()
	defer p.forget(id)
	if err := p.write(frame{kind: request, id: id, code: uint16(method), body: body}); err != nil {
		return nil, err
	}
	select {
	case f := <-answer:
		if f.kind == failure {
			return nil, &wire.Error{Code: wire.Code(f.code), Message: string(f.body)}
		}
		return f.body, nil
	case <-ctx.Done():
		if err := p.write(frame{kind: cancel, id: id}); err != nil {
			return nil, err
		}
		return nil, ctx.Err()
	case <-p.done:
		return nil, ErrClosed
	}
}

func (p *Peer) expect() (uint32, chan frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.next++
		if _, used := p.waiting[p.next]; !used {
			break
		}
	}
	answer := make(chan frame, 1)
	p.waiting[p.next] = answer
	return p.next, answer
}

func (p *Peer) forget(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

// write sends one frame; a connection that cannot be written is closed, which
// ends Serve.
func (p *Peer) write(f frame) error {
	if err := p.conn.writeFrame(f); err != nil {
		return errors.Join(ErrClosed, err, p.conn.Close())
	}
	return nil
}

// Serve reads from the connection until it ends, ctx ends or the other end
// falls silent, and gives requests to handle; with a nil handle every request
// is refused. It closes the connection, waits for the handlers it started and
// returns why it ended: ctx's error, io.EOF when the other end closed, or what
// went wrong.
func (p *Peer) Serve(ctx context.Context, handle Handler) error {
	inner, stop := context.WithCancel(ctx)
	closed := context.AfterFunc(inner, func() { _ = p.conn.Close() }) // the error comes out of readFrame
	var running sync.WaitGroup
	running.Go(func() { p.beat(inner) })
	err := p.read(inner, handle, &running)
	close(p.done)
	stop()
	running.Wait()
	closed()
	_ = p.conn.Close() // why reading ended says more
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// beat tells the other end regularly that this one is alive.
func (p *Peer) beat(ctx context.Context) {
	tick := time.NewTicker(p.timing.Ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if p.write(frame{kind: ping}) != nil {
				return // write closed the connection; read reports it
			}
		}
	}
}

func (p *Peer) read(ctx context.Context, handle Handler, running *sync.WaitGroup) error {
	for {
		f, err := p.conn.readFrame(p.timing.Silence)
		if err != nil {
			return err
		}
		switch f.kind {
		case response, failure:
			p.answered(f)
		case cancel:
			p.abandon(f.id)
		case request:
			if err := p.accept(ctx, handle, f, running); err != nil {
				return err
			}
		}
	}
}

func (p *Peer) answered(f frame) {
	p.mu.Lock()
	answer, ok := p.waiting[f.id]
	delete(p.waiting, f.id)
	p.mu.Unlock()
	if ok {
		answer <- f
	}
}

func (p *Peer) abandon(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stop, ok := p.handled[id]; ok {
		stop()
	}
}

// accept starts the handler of one request, or refuses it.
func (p *Peer) accept(ctx context.Context, handle Handler, f frame, running *sync.WaitGroup) error {
	if handle == nil {
		return p.refuse(f.id, errNoMethod)
	}
	ctx, stop := context.WithCancel(ctx)
	p.mu.Lock()
	_, twice := p.handled[f.id]
	full := len(p.handled) >= maxHandled
	if !twice && !full {
		p.handled[f.id] = stop
	}
	p.mu.Unlock()
	if twice || full {
		stop()
		if twice {
			return ErrFrame
		}
		return p.refuse(f.id, errBusy)
	}
	running.Go(func() {
		body, err := handle(ctx, wire.Method(f.code), f.body)
		p.mu.Lock()
		delete(p.handled, f.id)
		p.mu.Unlock()
		stop()
		if err == nil && len(body) > wire.MaxFrame {
			err = errInternal
		}
		if err != nil {
			_ = p.refuse(f.id, err) // a failed write closed the connection; read reports it
			return
		}
		_ = p.write(frame{kind: response, id: f.id, body: body}) // as above
	})
	return nil
}

func (p *Peer) refuse(id uint32, err error) error {
	var known *wire.Error
	if !errors.As(err, &known) {
		known = errInternal
	}
	message := known.Message
	if len(message) > wire.MaxMessage {
		message = message[:wire.MaxMessage]
	}
	return p.write(frame{kind: failure, id: id, code: uint16(known.Code), body: []byte(message)})
}
