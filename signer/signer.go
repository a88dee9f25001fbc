// Package signer keeps private keys in a process of its own. The parent starts
// the child and asks it over its standard input and output; the child parses
// what it signs and refuses everything outside its role. The child must not
// open a network connection, and the parent never sees a key.
package signer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"livemend.dev/livemend/trust"
)

var errPending = errors.New("not built yet")

// Role says what a signer child signs.
type Role string

// The roles.
const (
	Online   Role = "online"   // snapshot and timestamp metadata
	Director Role = "director" // manifests
)

// Config is what a child is started with.
type Config struct {
	Role      Role
	Keys      []string // key files
	PerMinute int      // manifests per minute
	Now       func() time.Time
}

// Serve answers requests from r on w until r ends. It is the child's whole life.
func Serve(ctx context.Context, cfg Config, r io.Reader, w io.Writer) error { return errPending }

// Client is the parent's end: it starts the child, and again when it died. Safe
// for concurrent use.
type Client struct{}

// Start runs argv, which must be a program that calls Serve. Logs go to log.
func Start(ctx context.Context, argv []string, log *slog.Logger) (*Client, error) {
	return nil, errPending
}

// Key is one key of the child; it satisfies repo.Signer.
type Key struct{}

// Public returns the public half.
func (k *Key) Public() trust.PublicKey { return trust.PublicKey{} }

// Sign asks the child.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) { return nil, errPending }

// Keys returns the child's keys in the order of its flags.
func (c *Client) Keys() []*Key { return nil }

// Public returns the first key; with Sign it makes the Client a repo.Signer.
func (c *Client) Public() trust.PublicKey { return trust.PublicKey{} }

// Sign asks the child to sign with its first key.
func (c *Client) Sign(ctx context.Context, message []byte) ([]byte, error) { return nil, errPending }

// SignManifest returns the envelope of m signed by every key of the child.
func (c *Client) SignManifest(ctx context.Context, m *trust.Manifest) ([]byte, error) {
	return nil, errPending
}

// Close ends the child and waits for it.
func (c *Client) Close() error { return errPending }
