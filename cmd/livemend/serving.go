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
	err := server.Serve(listener)
	if stop() { // it was not asked to end
		return err
	}
	return <-stopped
}
