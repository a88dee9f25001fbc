package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// Serve answers requests from r on w, one after the other, until r ends or ctx
// does (a blocked read is only ended by closing r). It is the child's whole
// life. Its error wraps ErrConfig when it could not start.
func Serve(ctx context.Context, cfg Config, r io.Reader, w io.Writer) error {
	s, err := newService(cfg)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		var req request
		err := readFrame(r, &req)
		if errors.Is(err, io.EOF) && !errors.Is(err, errFrame) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeFrame(w, s.answer(ctx, req)); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
	return ctx.Err()
}

// Harden keeps other processes of the same user from reading this one's memory
// and the kernel from writing it to a core file. A child calls it before Serve.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("closing the signer's memory to others: %w", err)
	}
	return nil
}

type service struct {
	keys   []*repo.KeyFile
	check  func(v cjson.Value) error
	now    func() time.Time
	budget budget
}

func newService(cfg Config) (*service, error) {
	if len(cfg.Keys) == 0 || len(cfg.Keys) > MaxKeys {
		return nil, fmt.Errorf("%w: between 1 and %d key files are needed", ErrConfig, MaxKeys)
	}
	if cfg.PerMinute < 0 || cfg.PerMinute > MaxPerMinute {
		return nil, fmt.Errorf("%w: manifests per minute must be between 1 and %d", ErrConfig, MaxPerMinute)
	}
	s := &service{now: cfg.Now, budget: budget{perMinute: cfg.PerMinute}}
	if s.budget.perMinute == 0 {
		s.budget.perMinute = DefaultPerMinute
	}
	switch cfg.Role {
	case Online:
		s.check = s.checkOnline
	case Director:
		s.check = s.checkManifest
	default:
		return nil, fmt.Errorf("%w: the role %q is unknown", ErrConfig, cfg.Role)
	}
	for _, path := range cfg.Keys {
		k, err := repo.LoadKey(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		s.keys = append(s.keys, k)
	}
	return s, nil
}

func (s *service) answer(ctx context.Context, req request) answer {
	if req.Key == "" {
		var a answer
		for _, k := range s.keys {
			a.Keys = append(a.Keys, k.Public())
		}
		return a
	}
	sig, err := s.sign(ctx, req)
	if err != nil {
		return answer{Refused: err.Error()}
	}
	return answer{Signature: sig}
}

func (s *service) sign(ctx context.Context, req request) ([]byte, error) {
	for _, k := range s.keys {
		if k.Public().Public != req.Key {
			continue
		}
		v, err := cjson.Parse(req.Message)
		if err != nil {
			return nil, fmt.Errorf("not a document: %w", err)
		}
		// Only the canonical form: what is signed is then what was checked.
		if !bytes.Equal(v.Canonical(), req.Message) {
			return nil, errors.New("not in canonical form")
		}
		if err := s.check(v); err != nil {
			return nil, err
		}
		return k.Sign(ctx, req.Message)
	}
	return nil, errors.New("no such key here")
}

func (s *service) checkOnline(v cjson.Value) error {
	lives := map[string]time.Duration{"timestamp": MaxTimestampLife, "snapshot": MaxSnapshotLife}
	c := cjson.Fields(v)
	role, expires := c.Text("_type", 64), c.Text("expires", 64)
	if err := c.Err(); err != nil {
		return err
	}
	life, ok := lives[role]
	if !ok {
		return errors.New("this key signs only snapshot and timestamp metadata")
	}
	at, err := time.Parse("2006-01-02T15:04:05Z", expires)
	if err != nil {
		return errors.New("its expiry is not a time")
	}
	if at.After(s.now().Add(life)) {
		return fmt.Errorf("%s metadata may last at most %v", role, life)
	}
	return nil
}

func (s *service) checkManifest(v cjson.Value) error {
	m, err := trust.ParseManifest(v)
	if err != nil {
		return err
	}
	// A field that the check does not know could mean something to a reader.
	if !bytes.Equal(m.Value().Canonical(), v.Canonical()) {
		return errors.New("the manifest has fields that this signer does not know")
	}
	now := s.now()
	if m.Issued > now.Add(trust.MaxClockSkew).Unix() || m.NotAfter < now.Unix() {
		return errors.New("the manifest is not for now")
	}
	if !s.budget.take(now) {
		return fmt.Errorf("more than %d manifests in one minute", s.budget.perMinute)
	}
	return nil
}

// budget counts what was signed in the running minute.
type budget struct {
	perMinute int
	start     time.Time
	used      int
}

func (b *budget) take(now time.Time) bool {
	if since := now.Sub(b.start); since >= time.Minute || since < 0 {
		b.start, b.used = now, 0
	}
	if b.used >= b.perMinute {
		return false
	}
	b.used++
	return true
}
