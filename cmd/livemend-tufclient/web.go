package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"livemend.dev/livemend/trust/client"
)

// How slow a server may be. One that sends less than enough bytes in a window
// of patience, or takes longer than maxMetadataTime for a metadata file, is
// given up: it could hold up an update for ever.
const (
	defaultPatience = 20 * time.Second
	enough          = 32 << 10 // bytes
	maxMetadataTime = 10 * time.Minute
)

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 64 << 10

var (
	errSlow = errors.New("the server sends too slowly")
	errLong = errors.New("the server sends more than may be")
)

// web reads files below one address. It implements client.Fetcher.
type web struct {
	base     string // ends with a slash
	patience time.Duration
	longest  time.Duration // for a metadata file
	http     *http.Client
}

func newWeb(base string, patience time.Duration) *web {
	return &web{
		base:     strings.TrimRight(base, "/") + "/",
		patience: patience,
		longest:  maxMetadataTime,
		http: &http.Client{Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableCompression:     true, // lengths are those of what was signed
			MaxResponseHeaderBytes: maxHeader,
		}},
	}
}

// Fetch implements client.Fetcher. Stores of files that may not be listed say
// that a missing file is forbidden, so that counts as missing.
func (w *web) Fetch(ctx context.Context, name string, max int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, w.longest, errSlow)
	defer cancel()
	var b bytes.Buffer
	if err := w.copy(ctx, name, max, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// copy writes the file at the escaped path to out, at most max bytes of it.
func (w *web) copy(ctx context.Context, path string, max int64, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address, err := url.Parse(w.base + path)
	if err != nil {
		return fmt.Errorf("the address of %q: %w", path, err)
	}
	if address.Scheme != "http" && address.Scheme != "https" {
		return fmt.Errorf("%s: only http and https are spoken", address.Redacted())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	progress := newWatch(w.patience, func() { cancel(errSlow) })
	defer progress.stop()
	err = w.receive(req, max, progress, out)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errSlow) {
		err = fmt.Errorf("less than %d bytes in %s, or more than %s for metadata: %w", enough, w.patience, w.longest, errSlow)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", address.Redacted(), err)
	}
	return nil
}

func (w *web) receive(req *http.Request, max int64, progress *watch, out io.Writer) error {
	answer, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // what was read is verified
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden:
		return client.ErrNotFound
	default:
		return errors.New("the server says " + answer.Status)
	}
	if answer.ContentLength > max {
		return fmt.Errorf("%d bytes, at most %d are taken: %w", answer.ContentLength, max, errLong)
	}
	n, err := io.Copy(io.MultiWriter(progress, out), io.LimitReader(answer.Body, max+1))
	if err == nil && n > max {
		err = fmt.Errorf("at most %d bytes are taken: %w", max, errLong)
	}
	return err
}
