package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// pause is the time from one request of a client to its next. A request's time
// counts from when it was due, so one that has to wait for a slow one before it
// is slow itself.
const pause = 10 * time.Millisecond

// behind is how late a client may be before it gives its schedule up and makes
// a new one; otherwise a machine that is too slow would be later every time.
const behind = 500 * time.Millisecond

// tally is what clients saw.
type tally struct {
	took   []time.Duration
	failed []string
}

// client asks one server for one page after the other.
type client struct {
	url   string
	pages int
	gzip  bool // the answer must come compressed
	http  *http.Client
	tally tally
}

// clients returns some that keep their connections and some that make a new one
// for every request, for each server.
func (s *servers) clients() (list []*client) {
	for _, c := range []client{
		{url: s.plain, pages: len(pages), gzip: true},
		{url: s.tls, pages: len(pages), gzip: true},
		{url: s.other, pages: haproxyPages},
	} {
		for _, fresh := range []bool{false, false, true} {
			one := c
			one.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
				DisableKeepAlives: fresh, TLSClientConfig: &tls.Config{RootCAs: s.roots},
			}}
			list = append(list, &one)
		}
	}
	return list
}

// ask makes one request and checks the answer.
func (c *client) ask(page int) error {
	r, err := c.http.Get(c.url + strconv.Itoa(page))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if cerr := r.Body.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s%d: %w", c.url, page, err)
	case r.StatusCode != http.StatusOK:
		return fmt.Errorf("%s%d: %s", c.url, page, r.Status)
	case string(body) != pages[page]:
		return fmt.Errorf("%s%d: the body of %d bytes is not the page", c.url, page, len(body))
	case c.gzip && !r.Uncompressed:
		return fmt.Errorf("%s%d: the body was not compressed", c.url, page)
	}
	return nil
}

// run asks until the context ends.
func (c *client) run(ctx context.Context) {
	due := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		if err := c.ask(n % c.pages); err != nil {
			c.tally.failed = append(c.tally.failed, err.Error())
		}
		c.tally.took = append(c.tally.took, time.Since(due))
		if due = due.Add(pause); time.Since(due) > behind {
			due = time.Now()
		}
		time.Sleep(time.Until(due))
	}
	c.http.CloseIdleConnections()
}

// under runs all clients while f runs and returns what they saw.
func (s *servers) under(f func()) (sum tally) {
	list := s.clients()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for _, c := range list {
		done.Go(func() { c.run(ctx) })
	}
	func() {
		defer done.Wait()
		defer cancel()
		f()
	}()
	for _, c := range list {
		sum.took = append(sum.took, c.tally.took...)
		sum.failed = append(sum.failed, c.tally.failed...)
	}
	slices.Sort(sum.took)
	return sum
}

// figures prints how long requests took.
func (t *tally) figures(name string) {
	n := len(t.took)
	fmt.Printf("figure %s_requests %d requests\n", name, n)
	fmt.Printf("figure %s_failed %d requests\n", name, len(t.failed))
	for _, q := range []struct {
		name string
		at   int
	}{{"p50", n / 2}, {"p99", n * 99 / 100}, {"p999", n * 999 / 1000}, {"max", n - 1}} {
		fmt.Printf("figure %s_%s_ms %.2f ms\n", name, q.name, float64(t.took[q.at].Nanoseconds())/1e6)
	}
}
