package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Timeouts of the web servers. Uploads may take long; headers may not.
const (
	headerTimeout   = 10 * time.Second
	readTimeout     = 10 * time.Minute
	idleTimeout     = 2 * time.Minute
	maxHeaderBytes  = 32 << 10
	shutdownTimeout = 10 * time.Second
)

// newLog returns the log of a serving program: structured lines on standard error.
func newLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// serveHTTP serves until ctx ends and then lets running requests finish, for a
// while.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	return serveUntil(ctx, handler, log, func(s *http.Server) error { return s.Serve(listener) })
}

// serveHTTPS is serveHTTP with a certificate.
func serveHTTPS(ctx context.Context, listener net.Listener, handler http.Handler, cert, key string, log *slog.Logger) error {
	return serveUntil(ctx, handler, log, func(s *http.Server) error { return s.ServeTLS(listener, cert, key) })
}

func serveUntil(ctx context.Context, handler http.Handler, log *slog.Logger, serve func(*http.Server) error) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // what is still open has had its time
		}
		stopped <- err
	})
	err := serve(server)
	if stop() { // it was not asked to end
		return err
	}
	return <-stopped
}
