// Package agents is the agents' end of the channel: it takes their connections,
// finds out by the channel's key who each is, and turns their requests into
// calls of the platform's use cases. It also serves what a machine needs before
// it has an agent: trust bundle, install script and packages.
//
// It decides nothing about enrolment, orders or results, and stores nothing.
package agents

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/server"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/wire"
)

// Limits on what connects here.
const (
	MaxConnections   = 50_000
	requestsPerSec   = 100 // of one connection; more wait
	requestBurst     = 400
	enrolmentsPerSec = 1 // of one address; more are told to wait
	enrolmentBurst   = 20
	maxAddresses     = 10_000 // whose enrolments are counted
	closeTime        = 5 * time.Second
)

// Handler serves agents. The caller closes it after the web server has stopped
// taking requests.
type Handler struct {
	svc  *platform.Service
	keys []server.Key
	log  *slog.Logger
	mux  *http.ServeMux

	mu        sync.Mutex
	closed    bool
	open      map[*connection]struct{}
	byKey     map[[channel.KeySize]byte]*connection
	enrolling map[string]*rate.Limiter // by address
	running   sync.WaitGroup
}

// New makes a handler that answers agents with any of the channel keys.
func New(svc *platform.Service, keys []server.Key, log *slog.Logger) *Handler {
	h := &Handler{svc: svc, keys: keys, log: log, mux: http.NewServeMux(), open: map[*connection]struct{}{},
		byKey: map[[channel.KeySize]byte]*connection{}, enrolling: map[string]*rate.Limiter{}}
	h.mux.HandleFunc("GET "+channel.Path, h.connect)
	h.mux.HandleFunc("GET /trust.json", h.bundle)
	h.mux.HandleFunc("GET /install", h.script)
	h.mux.HandleFunc("GET /install/{file}", h.file)
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Close ends all connections, which a web server's Shutdown does not, and waits
// for their requests.
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	for c := range h.open {
		c.stop()
	}
	h.mu.Unlock()
	h.running.Wait()
}

// connect serves one agent until its connection ends.
func (h *Handler) connect(w http.ResponseWriter, r *http.Request) {
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	c := &connection{h: h, stop: stop, limit: rate.NewLimiter(requestsPerSec, requestBurst), address: host(r.RemoteAddr)}
	if !h.admit(c) {
		http.Error(w, "This platform has as many agents as it can take. Try again later.", http.StatusServiceUnavailable)
		return
	}
	defer h.forget(c)
	conn, err := server.Upgrade(w, r, h.keys)
	if err != nil {
		h.log.InfoContext(ctx, "an agent's connection was not made", "address", c.address, "error", err)
		return
	}
	c.key, c.handshake = conn.RemoteKey(), conn.HandshakeHash()
	h.replace(c)
	err = channel.NewPeer(conn).Serve(ctx, c.handle)
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		h.log.InfoContext(ctx, "an agent's connection ended", "address", c.address, "error", err)
	}
	c.leave(ctx)
}

// admit counts a connection, unless there are too many.
func (h *Handler) admit(c *connection) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.open) >= MaxConnections {
		return false
	}
	h.open[c] = struct{}{}
	h.running.Add(1)
	return true
}

// replace makes c the connection of its key. An agent has one: when it comes
// back, the one before is dead or about to be.
func (h *Handler) replace(c *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if before := h.byKey[c.key]; before != nil {
		before.stop()
	}
	h.byKey[c.key] = c
}

func (h *Handler) forget(c *connection) {
	h.mu.Lock()
	delete(h.open, c)
	if h.byKey[c.key] == c {
		delete(h.byKey, c.key)
	}
	h.mu.Unlock()
	h.running.Done()
}

// mayEnrol counts the enrolments of an address.
func (h *Handler) mayEnrol(address string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.enrolling[address]
	if !ok {
		if len(h.enrolling) >= maxAddresses {
			clear(h.enrolling) // forgets, rather than grows: each address starts anew
		}
		l = rate.NewLimiter(enrolmentsPerSec, enrolmentBurst)
		h.enrolling[address] = l
	}
	return l.Allow()
}

func host(address string) string {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return name
}

// bundle serves what the trust digest of the install command pins.
func (h *Handler) bundle(w http.ResponseWriter, r *http.Request) {
	h.send(w, r, "application/json", h.svc.Bundle())
}

// script serves the install script.
func (h *Handler) script(w http.ResponseWriter, r *http.Request) {
	script, err := h.svc.InstallScript()
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.send(w, r, "text/x-shellscript; charset=utf-8", script)
}

func (h *Handler) send(w http.ResponseWriter, r *http.Request, kind string, b []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := w.Write(b); err != nil {
		h.log.InfoContext(r.Context(), "an answer was not taken", "error", err)
	}
}

// file serves one of the packages that the script names.
func (h *Handler) file(w http.ResponseWriter, r *http.Request) {
	path, err := h.svc.Package(r.PathValue("file"))
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.debian.binary-package")
	http.ServeFile(w, r, path)
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var known *platform.Problem
	switch {
	case errors.As(err, &known) && errors.Is(err, platform.ErrNotFound):
		http.Error(w, known.Text, http.StatusNotFound)
	case errors.As(err, &known):
		http.Error(w, known.Text, http.StatusServiceUnavailable)
	default:
		h.log.ErrorContext(r.Context(), "serving the installer", "error", err)
		http.Error(w, "The platform failed. Nothing was changed; try again later.", http.StatusInternalServerError)
	}
}

// errBusy tells an agent to come back later.
var errBusy = &wire.Error{Code: wire.CodeBusy, Message: "too many enrolments from this address; nothing was changed, ask again in a minute"}
