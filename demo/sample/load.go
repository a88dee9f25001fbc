package sample

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pace is the pause between two requests of one client.
const pace = 5 * time.Millisecond

// Load is a number of clients that send valid requests all the time, each over
// one connection that it keeps.
type Load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	stats LoadStats
}

// LoadStats counts what the clients of a Load saw.
type LoadStats struct {
	Clients    int
	Requests   int64 // answered as they should be
	Failures   int64 // not answered, or answered wrongly
	Reconnects int64 // connections opened after the first of each client
	LastError  string
	Longest    time.Duration // longest wait for an answer
}

func (s LoadStats) String() string {
	text := fmt.Sprintf("%d clients: %d requests, %d failed, %d reconnects, longest wait %.1f ms",
		s.Clients, s.Requests, s.Failures, s.Reconnects, float64(s.Longest.Microseconds())/1000)
	if s.LastError != "" {
		text += ", last error: " + s.LastError
	}
	return text
}

// StartLoad connects clients to the service at addr; all are connected when it
// returns. Stop ends them.
func StartLoad(ctx context.Context, addr string, clients int) (*Load, error) {
	ctx, stop := context.WithCancel(ctx)
	l := &Load{stop: stop, stats: LoadStats{Clients: clients}}
	for i := range clients {
		c, err := Dial(ctx, addr)
		if err != nil {
			l.Stop()
			return nil, err
		}
		l.done.Go(func() { l.client(ctx, addr, c, i) })
	}
	return l, nil
}

// Stats returns the counts so far.
func (l *Load) Stats() LoadStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Stop ends the clients, waits for them and returns their counts.
func (l *Load) Stop() LoadStats {
	l.stop()
	l.done.Wait()
	return l.Stats()
}

// client sends requests until ctx ends. After a failure it opens a new
// connection, and counts both.
func (l *Load) client(ctx context.Context, addr string, c *Conn, number int) {
	defer func() { c.Close() }()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		payload := fmt.Appendf(nil, "client %d request %d %0*d", number, n, n%60, 0)
		begun := time.Now()
		err := c.Beat(payload)
		l.count(time.Since(begun), err)
		if err == nil {
			continue
		}
		c.Close()
		again, err := Dial(ctx, addr)
		if err != nil {
			continue // the closed connection fails, and counts, at the next turn
		}
		c = again
		l.mu.Lock()
		l.stats.Reconnects++
		l.mu.Unlock()
	}
}

func (l *Load) count(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.stats.Failures++
		l.stats.LastError = err.Error()
		return
	}
	l.stats.Requests++
	l.stats.Longest = max(l.stats.Longest, took)
}
