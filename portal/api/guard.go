package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"livemend.dev/livemend/portal"
)

// Bounds of one request.
const (
	maxBody     = portal.MaxArtifact + 1<<20 // bytes; operations have lower ones
	maxDuration = 5 * time.Minute            // a large upload on a slow line
)

type actorKey struct{}

func actorOf(ctx context.Context) (portal.Actor, error) {
	actor, ok := ctx.Value(actorKey{}).(portal.Actor)
	if !ok {
		return portal.Actor{}, &portal.Error{Kind: portal.Unauthenticated, Detail: "the credential is missing"}
	}
	return actor, nil
}

// guard lets a request through when it carries a known credential and its
// sender has tokens left.
type guard struct {
	next                http.Handler
	server              *server
	credential, unknown *limiter
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), maxDuration)
	defer cancel()
	now := g.server.now()
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	actor, err := g.server.service.Authenticate(ctx, text)
	if err != nil {
		// Only strangers pay: behind a proxy everybody has the same address.
		if !g.unknown.allow(addressOf(r), now) {
			g.server.tooMany(w)
			return
		}
		g.server.writeProblem(w, g.server.problem(ctx, err))
		return
	}
	if !g.credential.allow(actor.Credential(), now) {
		g.server.tooMany(w)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	w.Header().Set("Cache-Control", "no-store")
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, actorKey{}, actor)))
}

// addressOf returns what one sender's requests have in common: its IPv4
// address or its IPv6 /64, of which a sender has every address.
func addressOf(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "" // not a network address: all such senders share a bucket
	}
	address := peer.Addr().Unmap()
	if address.Is4() {
		return address.String()
	}
	network, err := address.WithZone("").Prefix(64)
	if err != nil {
		return ""
	}
	return network.String()
}

// Bounds of a limiter's memory.
const (
	maxBuckets = 10_000
	sweepEvery = time.Second
)

// limiter is a bounded set of token buckets by name.
type limiter struct {
	rate    Rate
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	rest    *rate.Limiter // shared by newcomers while the set is full
	swept   time.Time
}

func newLimiter(r Rate) *limiter {
	return &limiter{rate: r, buckets: make(map[string]*rate.Limiter), rest: bucket(r)}
}

func bucket(r Rate) *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }

// allow takes one token of name's bucket, if one is left.
func (l *limiter) allow(name string, now time.Time) bool { return l.of(name, now).AllowN(now, 1) }

func (l *limiter) of(name string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.buckets[name]; ok {
		return b
	}
	if len(l.buckets) >= maxBuckets {
		l.sweep(now)
	}
	if len(l.buckets) >= maxBuckets {
		return l.rest
	}
	b := bucket(l.rate)
	l.buckets[name] = b
	return b
}

// sweep forgets buckets that are full again: a new one is the same.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < sweepEvery {
		return
	}
	l.swept = now
	for name, b := range l.buckets {
		if b.TokensAt(now) >= float64(l.rate.Burst) {
			delete(l.buckets, name)
		}
	}
}
