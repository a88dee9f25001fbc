package signer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// How the parent treats its child.
const (
	askTime   = 10 * time.Second // for one answer; after it the child counts as dead
	closeTime = 5 * time.Second  // for ending by itself after its input was closed
	// restartPause is the least time between two starts, so that a child that
	// dies at once does not keep a processor busy.
	restartPause = 250 * time.Millisecond
)

// Client is the parent's end: it starts the child, and starts it again when it
// died. Safe for concurrent use; requests are answered one at a time.
type Client struct {
	argv []string
	log  *slog.Logger
	keys []*Key

	turn    chan struct{} // holds one token: whoever has it owns what is below
	child   *process
	started time.Time
	closed  bool
	stop    func() bool
}

// Key is one key of the child. It satisfies repo.Signer.
type Key struct {
	client *Client
	public trust.PublicKey
}

// Start runs argv, a program that calls Serve on its standard input and output,
// asks it for its keys and returns. The child gets an empty environment, and
// ends when Close is called, ctx ends or the parent dies.
func Start(ctx context.Context, argv []string, log *slog.Logger) (*Client, error) {
	if len(argv) == 0 {
		return nil, fmt.Errorf("%w: no program", ErrConfig)
	}
	c := &Client{argv: slices.Clone(argv), log: log, turn: make(chan struct{}, 1)}
	keys, err := c.startChild(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		c.keys = append(c.keys, &Key{c, k})
	}
	c.stop = context.AfterFunc(ctx, func() {
		if err := c.Close(); err != nil {
			log.Error("ending the signer", "error", err)
		}
	})
	c.turn <- struct{}{}
	return c, nil
}

// startChild starts the child and returns its keys. The caller has the turn.
func (c *Client) startChild(ctx context.Context) ([]trust.PublicKey, error) {
	if pause := restartPause - time.Since(c.started); pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c.started = time.Now()
	child, err := startProcess(c.argv)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	a, err := child.ask(ctx, request{})
	if err == nil && len(a.Keys) == 0 {
		err = errFrame
	}
	if err != nil {
		words := child.end()
		return nil, fmt.Errorf("starting the signer: %w (it said: %s)", err, words)
	}
	c.child = child
	return a.Keys, nil
}

// Keys returns the child's keys in the order of its key files.
func (c *Client) Keys() []*Key { return slices.Clone(c.keys) }

// Public returns the first key; with Sign it makes the Client a repo.Signer.
func (c *Client) Public() trust.PublicKey { return c.keys[0].Public() }

// Sign asks the child to sign with its first key.
func (c *Client) Sign(ctx context.Context, message []byte) ([]byte, error) {
	return c.keys[0].Sign(ctx, message)
}

// SignManifest returns the envelope of m signed by every key of the child.
func (c *Client) SignManifest(ctx context.Context, m *trust.Manifest) ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	e := trust.Envelope{Signed: m.Value()}
	for _, k := range c.keys {
		sig, err := k.Sign(ctx, e.Message())
		if err != nil {
			return nil, err
		}
		e.Signatures = append(e.Signatures, trust.Signature{KeyID: repo.KeyID(k.public), Sig: sig})
	}
	return e.Encode(), nil
}

// Public returns the public half.
func (k *Key) Public() trust.PublicKey { return k.public }

// Sign asks the child to sign message, which must be the canonical form of a
// document of the child's role. The error wraps ErrRefused when the child
// refuses it, and ErrGone when the child died over it twice; nothing was signed
// that anybody has, and asking again is safe.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	a, err := k.client.ask(ctx, request{Key: k.public.Public, Message: message})
	if err != nil {
		return nil, err
	}
	if a.Refused != "" {
		return nil, fmt.Errorf("%w: %s", ErrRefused, a.Refused)
	}
	return a.Signature, nil
}

type outcome struct {
	answer answer
	err    error
}

// ask waits for its turn and for the answer. When ctx ends first, the question
// is still carried to its end: killing the child for every caller who goes away
// would let callers keep it dead.
func (c *Client) ask(ctx context.Context, req request) (answer, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	done := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		a, err := c.exchange(ctx, req)
		c.turn <- struct{}{}
		done <- outcome{a, err}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// exchange asks a living child, and a second one when the first dies over it:
// signing twice does no harm. The caller has the turn.
func (c *Client) exchange(ctx context.Context, req request) (answer, error) {
	var err error
	for range 2 {
		if err = c.revive(ctx); err != nil {
			return answer{}, err
		}
		var a answer
		if a, err = c.child.ask(ctx, req); err == nil {
			return a, nil
		}
		// Its next answer could belong to this question.
		c.bury()
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, fmt.Errorf("%w: %w", ErrGone, err)
}

// revive makes sure that there is a child, as far as one can know.
func (c *Client) revive(ctx context.Context) error {
	if c.closed {
		return ErrClosed
	}
	if c.child != nil && c.child.dead() {
		c.bury()
	}
	if c.child != nil {
		return nil
	}
	keys, err := c.startChild(ctx)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(keys, c.keys, func(a trust.PublicKey, b *Key) bool { return a == b.public }) {
		c.bury()
		return fmt.Errorf("%w: it came back with other keys", ErrConfig)
	}
	return nil
}

// bury ends the child and forgets it. The caller has the turn.
func (c *Client) bury() {
	words := c.child.end()
	c.child = nil
	c.log.Warn("the signer process ended; it is started again when needed", "said", words)
}

// Close ends the child and waits until it is gone. Later requests return
// ErrClosed.
func (c *Client) Close() error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.stop != nil {
		c.stop()
	}
	if c.child == nil {
		return nil
	}
	return c.child.close()
}
