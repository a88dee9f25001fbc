package client

import (
	"context"
	"errors"
	"time"

	"livemend.dev/livemend/trust"
)

// Find returns what the repository says of the target at path: in the targets
// role that Refresh left in t, or in a role it delegates to. Metadata of
// delegated roles is stored like that of others, and verified anew each time:
// who delegates to a role, and with which keys, may have changed since.
//
// The error wraps trust.ErrNoTarget when the repository names no such target.
// Any other error means that it can not be known: a role in the way is refused
// or can not be had.
func Find(ctx context.Context, cache Cache, fetch Fetcher, t *trust.Trusted, path string, now time.Time) (trust.Target, error) {
	s, err := t.Search(path)
	if err != nil {
		return trust.Target{}, err
	}
	for {
		want, more, err := s.Next()
		if err != nil {
			return trust.Target{}, err
		}
		if !more {
			return s.Result()
		}
		stored, err := cache.Load(want.Stored)
		switch {
		case err == nil && s.Update(stored, now) == nil:
			continue
		case err != nil && !errors.Is(err, ErrNotFound):
			return trust.Target{}, err
		}
		b, err := fetch.Fetch(ctx, want.Name, want.Limit)
		if err != nil {
			return trust.Target{}, err
		}
		if err := s.Update(b, now); err != nil {
			return trust.Target{}, err
		}
		if err := cache.Store(want.Stored, b); err != nil {
			return trust.Target{}, err
		}
	}
}
