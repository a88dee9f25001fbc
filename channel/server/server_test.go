package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/server"
	"livemend.dev/livemend/channel/slim"
	"livemend.dev/livemend/wire"
)

// limit bounds every wait in these tests; nothing waits that long when it works.
const limit = 30 * time.Second

func random(t *testing.T) (k [channel.KeySize]byte) {
	t.Helper()
	if _, err := rand.Read(k[:]); err != nil {
		t.Fatal(err)
	}
	return k
}

func serverKey(t *testing.T) server.Key {
	t.Helper()
	private := random(t)
	k, err := server.NewKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// upgraded is what a server's Upgrade returned.
type upgraded struct {
	conn *channel.Conn
	err  error
}

// listen runs an HTTP server that upgrades every request and returns its URL
// and the outcomes.
func listen(t *testing.T, keys ...server.Key) (string, <-chan upgraded) {
	t.Helper()
	out := make(chan upgraded, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := server.Upgrade(w, r, keys)
		out <- upgraded{c, err}
	}))
	t.Cleanup(s.Close)
	return s.URL, out
}

func within(t *testing.T) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), limit)
	t.Cleanup(stop)
	return ctx
}

// connect returns both ends of one connection.
func connect(t *testing.T) (agent, platform *channel.Conn) {
	t.Helper()
	key := serverKey(t)
	url, accepted := listen(t, key)
	session, err := slim.Dial(within(t), url, random(t), [][channel.KeySize]byte{key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	up := <-accepted
	if up.err != nil {
		t.Fatal(up.err)
	}
	return session.Conn, up.conn
}

// serve runs p until the test ends and returns where its end is reported.
func serve(t *testing.T, p *channel.Peer, h channel.Handler) <-chan error {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var once sync.WaitGroup
	once.Go(func() { done <- p.Serve(ctx, h) })
	t.Cleanup(func() { stop(); once.Wait() })
	return done
}

func echo(_ context.Context, m wire.Method, body []byte) ([]byte, error) {
	return append([]byte{byte(m)}, body...), nil
}

func TestBothEndsKnowEachOther(t *testing.T) {
	keys := []server.Key{serverKey(t), serverKey(t)}
	url, accepted := listen(t, keys...)
	private := random(t)
	stranger := serverKey(t)
	session, err := slim.Dial(within(t), url, private, [][channel.KeySize]byte{stranger.Public(), keys[1].Public()})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if first := <-accepted; !errors.Is(first.err, channel.ErrHandshake) {
		t.Errorf("a connection for another server's key: %v, want ErrHandshake", first.err)
	}
	up := <-accepted
	if up.err != nil {
		t.Fatal(up.err)
	}
	defer up.conn.Close()
	if up.conn.RemoteKey() != slim.Public(private) || session.ServerKey() != keys[1].Public() {
		t.Error("an end has the wrong key of the other")
	}
	if len(session.HandshakeHash()) == 0 || !bytes.Equal(session.HandshakeHash(), up.conn.HandshakeHash()) {
		t.Error("the handshake hashes differ")
	}
}

func TestDialRefusesUnknownServers(t *testing.T) {
	url, _ := listen(t, serverKey(t))
	if _, err := slim.Dial(within(t), url, random(t), [][channel.KeySize]byte{serverKey(t).Public()}); !errors.Is(err, channel.ErrHandshake) {
		t.Errorf("Dial = %v, want ErrHandshake", err)
	}
	if _, err := slim.Dial(within(t), url, random(t), nil); err == nil {
		t.Error("Dial without any server key succeeded")
	}
	if _, err := slim.Dial(within(t), strings.Replace(url, "http:", "https:", 1), random(t), nil); err == nil {
		t.Error("Dial accepted https")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := slim.Dial(ctx, "http://"+mute.Addr().String(), random(t), [][channel.KeySize]byte{random(t)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial = %v, want the context's error", err)
	}
}

func TestOtherRequestsAreAnswered(t *testing.T) {
	url, accepted := listen(t, serverKey(t))
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if up := <-accepted; resp.StatusCode != http.StatusUpgradeRequired || !errors.Is(up.err, server.ErrRequest) {
		t.Errorf("a plain GET: status %d, error %v", resp.StatusCode, up.err)
	}
}

func TestCallsBothWays(t *testing.T) {
	a, b := connect(t)
	agent, platform := channel.NewPeer(a), channel.NewPeer(b)
	serve(t, agent, echo)
	serve(t, platform, echo)
	ctx := within(t)
	var all sync.WaitGroup
	for i, n := range []int{0, 1, 65508, 65509, 65519, 200_000, wire.MaxFrame - 1} {
		for _, p := range []*channel.Peer{agent, platform} {
			all.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, n)
				got, err := p.Call(ctx, wire.Method(i), body)
				if err != nil || !bytes.Equal(got, append([]byte{byte(i)}, body...)) {
					t.Errorf("%d bytes: %d bytes came back, %v", n, len(got), err)
				}
			})
		}
	}
	all.Wait()
	if _, err := agent.Call(ctx, 1, make([]byte, wire.MaxFrame+1)); err == nil {
		t.Error("a body over the limit was sent")
	}
	var refused *wire.Error
	if _, err := agent.Call(ctx, 1, make([]byte, wire.MaxFrame)); !errors.As(err, &refused) || refused.Code != wire.CodeInternal {
		t.Errorf("an answer over the limit: %v, want CodeInternal", err)
	}
}

func TestErrorsCrossTheChannel(t *testing.T) {
	a, b := connect(t)
	agent, platform := channel.NewPeer(a), channel.NewPeer(b)
	serve(t, agent, nil)
	serve(t, platform, func(_ context.Context, m wire.Method, _ []byte) ([]byte, error) {
		if m == wire.Enrol {
			return nil, &wire.Error{Code: wire.CodePending, Message: "a person has to approve"}
		}
		return nil, errors.New("table systems is locked")
	})
	var got *wire.Error
	if _, err := agent.Call(within(t), wire.Enrol, nil); !errors.As(err, &got) || *got != (wire.Error{Code: wire.CodePending, Message: "a person has to approve"}) {
		t.Errorf("refusal came as %v", err)
	}
	if _, err := agent.Call(within(t), wire.Hello, nil); !errors.As(err, &got) || got.Code != wire.CodeInternal || strings.Contains(got.Message, "table") {
		t.Errorf("internal error came as %v", err)
	}
	if _, err := platform.Call(within(t), wire.Hello, nil); !errors.As(err, &got) || got.Code != wire.CodeMalformed {
		t.Errorf("a request to an end without handler: %v", err)
	}
}

func TestGivingUpReachesTheHandler(t *testing.T) {
	a, b := connect(t)
	agent, platform := channel.NewPeer(a), channel.NewPeer(b)
	started, ended := make(chan struct{}), make(chan struct{})
	serve(t, agent, nil)
	serve(t, platform, func(ctx context.Context, m wire.Method, _ []byte) ([]byte, error) {
		if m != wire.Work {
			return nil, nil
		}
		close(started)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	ctx, stop := context.WithCancel(within(t))
	go func() { <-started; stop() }()
	if _, err := agent.Call(ctx, wire.Work, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Call = %v, want Canceled", err)
	}
	<-ended
	if _, err := agent.Call(within(t), wire.Hello, nil); err != nil {
		t.Errorf("the connection is not usable after a call was given up: %v", err)
	}
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	a, b := connect(t)
	agent, platform := channel.NewPeer(a), channel.NewPeer(b)
	release, started := make(chan struct{}), make(chan struct{})
	serve(t, agent, nil)
	serve(t, platform, func(ctx context.Context, m wire.Method, _ []byte) ([]byte, error) {
		if m == wire.Work {
			started <- struct{}{}
			<-release // even when the asker has given up
		}
		return nil, nil
	})
	busy := false
	for range 2 * channel.MaxCalls { // each given up while it runs over there
		ctx, stop := context.WithCancel(within(t))
		go func() { <-started; stop() }()
		if _, err := agent.Call(ctx, wire.Work, nil); err == nil {
			t.Fatal("a request that still runs was answered")
		}
	}
	var got *wire.Error
	if _, err := agent.Call(within(t), wire.Hello, nil); errors.As(err, &got) && got.Code == wire.CodeBusy {
		busy = true
	}
	close(release)
	if !busy {
		t.Error("the other end handles requests without a limit")
	}
}

func TestEndOfTheOtherSide(t *testing.T) {
	a, b := connect(t)
	agent, platform := channel.NewPeer(a), channel.NewPeer(b)
	ended := serve(t, agent, nil)
	serve(t, platform, func(ctx context.Context, _ wire.Method, _ []byte) ([]byte, error) {
		return nil, b.Close()
	})
	if _, err := agent.Call(within(t), wire.Work, nil); !errors.Is(err, channel.ErrClosed) {
		t.Errorf("Call over a connection that ends = %v, want ErrClosed", err)
	}
	if err := <-ended; err == nil {
		t.Error("Serve returned without an error")
	}
	if _, err := agent.Call(within(t), wire.Work, nil); !errors.Is(err, channel.ErrClosed) {
		t.Errorf("Call over a closed connection = %v, want ErrClosed", err)
	}
}

func TestSilenceIsNoticed(t *testing.T) {
	a, b := connect(t)
	defer b.Close() // never served: sends nothing
	p := channel.NewPeerTiming(a, channel.Timing{Ping: 10 * time.Millisecond, Silence: 50 * time.Millisecond})
	var timeout net.Error
	if err := p.Serve(within(t), nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Serve = %v, want a timeout", err)
	}
}

func TestPingsKeepAQuietConnection(t *testing.T) {
	a, b := connect(t)
	quick := channel.Timing{Ping: 20 * time.Millisecond, Silence: 2 * time.Second}
	agent, platform := channel.NewPeerTiming(a, quick), channel.NewPeerTiming(b, quick)
	end := serve(t, agent, nil)
	serve(t, platform, func(ctx context.Context, _ wire.Method, _ []byte) ([]byte, error) {
		select { // longer than the silence that is allowed
		case <-time.After(2500 * time.Millisecond):
			return []byte("here"), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	if _, err := agent.Call(within(t), wire.Work, nil); err != nil {
		select {
		case serveErr := <-end:
			t.Fatalf("a quiet connection was dropped: %v, %v", err, serveErr)
		default:
			t.Fatalf("a quiet connection was dropped: %v", err)
		}
	}
}

// relay passes bytes between an agent and a server and can keep or change what
// the agent sends.
func relay(t *testing.T, url string, change func(agent []byte) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				in.Close()
				return
			}
			running.Go(func() { io.Copy(in, out); in.Close(); out.Close() })
			running.Go(func() {
				defer out.Close()
				buf := make([]byte, 1<<16)
				for {
					n, err := in.Read(buf)
					if err != nil {
						return
					}
					if _, err := out.Write(change(buf[:n])); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return "http://" + l.Addr().String()
}

func TestChangedRecordEndsTheConnection(t *testing.T) {
	key := serverKey(t)
	url, accepted := listen(t, key)
	var mu sync.Mutex
	spoil := false
	url = relay(t, url, func(b []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if spoil {
			b[len(b)-1] ^= 1
		}
		return b
	})
	session, err := slim.Dial(within(t), url, random(t), [][channel.KeySize]byte{key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	agent, platform := channel.NewPeer(session.Conn), channel.NewPeer((<-accepted).conn)
	serve(t, agent, nil)
	ended := serve(t, platform, echo)
	if _, err := agent.Call(within(t), wire.Hello, nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	spoil = true
	mu.Unlock()
	if _, err := agent.Call(within(t), wire.Hello, nil); err == nil {
		t.Error("a changed request was answered")
	}
	if err := <-ended; !errors.Is(err, channel.ErrTampered) {
		t.Errorf("Serve = %v, want ErrTampered", err)
	}
}

// A first message that was recorded from an agent must not make its replayer
// look like that agent.
func TestReplayedHandshakeIsNobody(t *testing.T) {
	key := serverKey(t)
	url, accepted := listen(t, key)
	var mu sync.Mutex
	var recorded []byte
	through := relay(t, url, func(b []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, b...)
		return b
	})
	session, err := slim.Dial(within(t), through, random(t), [][channel.KeySize]byte{key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	if up := <-accepted; up.err != nil {
		t.Fatal(up.err)
	} else {
		defer up.conn.Close()
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	mu.Lock()
	defer mu.Unlock()
	if _, err := raw.Write(recorded); err != nil {
		t.Fatal(err)
	}
	if up := <-accepted; !errors.Is(up.err, channel.ErrTampered) {
		t.Errorf("a replayed handshake: %v, want ErrTampered", up.err)
	}
}
