package agents

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/wire"
)

const challengeSize = 32

// connection is one agent's connection. Its requests run concurrently.
type connection struct {
	h         *Handler
	stop      context.CancelFunc
	limit     *rate.Limiter
	address   string
	key       [channel.KeySize]byte // what the handshake proved
	handshake []byte

	mu        sync.Mutex
	presence  *platform.Presence // nil before the first Hello of an enrolled server
	challenge []byte             // nil before Challenge
}

var errUnknown = &wire.Error{Code: wire.CodeUnknown, Message: "this agent is not enrolled here; nothing was done: enrol it first"}

// handle answers one request. Errors that are no *wire.Error are logged here and
// reach the agent without their text.
func (c *connection) handle(ctx context.Context, method wire.Method, body []byte) ([]byte, error) {
	if err := c.limit.Wait(ctx); err != nil {
		return nil, err
	}
	answer, err := c.answer(ctx, method, body)
	if err != nil && !errors.As(err, new(*wire.Error)) && ctx.Err() == nil {
		c.h.log.ErrorContext(ctx, "answering an agent", "method", method, "address", c.address, "error", err)
	}
	return answer, err
}

func (c *connection) answer(ctx context.Context, method wire.Method, body []byte) ([]byte, error) {
	switch method {
	case wire.Hello:
		return c.hello(ctx, body)
	case wire.Challenge:
		return c.newChallenge()
	case wire.Enrol:
		return c.enrol(ctx, body)
	}
	p := c.present()
	if p == nil {
		return nil, errUnknown
	}
	switch method {
	case wire.Inventory:
		return nil, p.Inventory(ctx, body)
	case wire.Work:
		return p.Work(ctx, wire.WorkWait*time.Second)
	case wire.Metadata:
		r, err := wire.DecodeRange(body)
		if err != nil {
			return nil, malformed("the range cannot be read: " + err.Error())
		}
		return c.h.svc.Metadata(r)
	case wire.Target:
		r, err := wire.DecodeRange(body)
		if err != nil {
			return nil, malformed("the range cannot be read: " + err.Error())
		}
		return c.h.svc.Target(r)
	case wire.Progress:
		step, err := wire.DecodeStep(body)
		if err != nil {
			return nil, malformed("the step cannot be read: " + err.Error())
		}
		return nil, p.Progress(ctx, step)
	case wire.Result:
		// The agent may be gone by now; what it said is stored all the same.
		return nil, p.Result(context.WithoutCancel(ctx), body)
	case wire.Alarm:
		attack, err := wire.DecodeAttack(body)
		if err != nil {
			return nil, malformed("the alarm cannot be read: " + err.Error())
		}
		return nil, p.Alarm(ctx, attack)
	}
	return nil, malformed("this platform does not know the request; the agent is newer than it")
}

func malformed(text string) error { return &wire.Error{Code: wire.CodeMalformed, Message: text} }

func (c *connection) present() *platform.Presence {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.presence
}

// hello finds out who the agent is. It may be said again after an enrolment.
func (c *connection) hello(ctx context.Context, body []byte) ([]byte, error) {
	g, err := wire.DecodeGreeting(body)
	if err != nil {
		return nil, malformed("the greeting cannot be read: " + err.Error())
	}
	if g.Version < 1 {
		return nil, &wire.Error{Code: wire.CodeOutdated, Message: "the agent speaks a protocol that this platform does not know any more; live patches stay in force: install the new agent"}
	}
	server, known, err := c.h.svc.KnownServer(ctx, c.key[:])
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known && c.presence == nil {
		if c.presence, err = c.h.svc.Arrive(ctx, server, g); err != nil {
			return nil, err
		}
	}
	return wire.Welcome{Version: wire.Version, Time: time.Now().Unix(), Known: known}.Encode(), nil
}

// newChallenge makes the nonce of this connection's enrolment, once.
func (c *connection) newChallenge() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.challenge != nil {
		return nil, malformed("a connection has one challenge; connect again")
	}
	c.challenge = make([]byte, challengeSize)
	rand.Read(c.challenge) // never fails: it ends the program when the system has no randomness
	return c.challenge, nil
}

func (c *connection) enrol(ctx context.Context, body []byte) ([]byte, error) {
	in, err := wire.DecodeEnrolment(body)
	if err != nil {
		return nil, malformed("the enrolment cannot be read: " + err.Error())
	}
	c.mu.Lock()
	challenge := c.challenge
	c.mu.Unlock()
	if challenge == nil {
		return nil, malformed("ask for a challenge first")
	}
	if !c.h.mayEnrol(c.address) {
		return nil, errBusy
	}
	admission, err := c.h.svc.Enrol(ctx, platform.Applicant{Enrolment: in, Challenge: challenge, Handshake: c.handshake, ChannelKey: c.key[:], Address: c.address})
	if err != nil {
		return nil, err
	}
	return admission.Encode(), nil
}

// leave tells the platform that the agent is gone.
func (c *connection) leave(ctx context.Context) {
	p := c.present()
	if p == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer stop()
	if err := p.Close(ctx); err != nil {
		c.h.log.ErrorContext(ctx, "noting that an agent left", "server", p.Server().ID, "error", err)
	}
}
