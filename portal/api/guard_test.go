package api

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestLimiterForgetsOnlyFullBuckets(t *testing.T) {
	l := newLimiter(Rate{PerSecond: 1, Burst: 2})
	now := time.Unix(1_800_000_000, 0)
	for i := range maxBuckets {
		l.allow(strconv.Itoa(i), now)
	}
	// Full: newcomers share one bucket, and nobody known loses theirs.
	got := 0
	for i := range 5 {
		if l.allow("new"+strconv.Itoa(i), now) {
			got++
		}
	}
	if got != 2 || len(l.buckets) != maxBuckets {
		t.Errorf("%d newcomers were let in with %d buckets", got, len(l.buckets))
	}
	if !l.allow("0", now) || l.allow("0", now) {
		t.Error("a known name lost its bucket")
	}
	// Later most buckets are full again and make room.
	now = now.Add(1500 * time.Millisecond)
	if !l.allow("newer", now) || len(l.buckets) != 2 {
		t.Errorf("%d buckets stay, want that of 0, which is not full yet, and the new one", len(l.buckets))
	}
}

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80":              "192.0.2.1",
		"[::ffff:192.0.2.1]:80":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"@":                         "",
	} {
		if got := addressOf(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("addressOf(%s) = %q, want %q", remote, got, want)
		}
	}
}
