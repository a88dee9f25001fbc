package channel

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"livemend.dev/livemend/wire"
)

// open is a Cipher that hides nothing: it lets tests write records by hand.
type open struct{}

func (open) Encrypt(out, _, plain []byte) ([]byte, error) {
	return append(append(out, plain...), make([]byte, tagSize)...), nil
}

func (open) Decrypt(out, _, sealed []byte) ([]byte, error) {
	return append(out, sealed[:len(sealed)-tagSize]...), nil
}

// sink is a connection that swallows writes.
type sink struct {
	net.Conn
	out bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Close() error                     { return nil }
func plainConn(in io.Reader) (*Conn, *sink) {
	s := &sink{}
	return NewConn(s, in, open{}, open{}, nil, [KeySize]byte{}), s
}
func written(t testing.TB, frames ...frame) []byte {
	t.Helper()
	c, s := plainConn(nil)
	for _, f := range frames {
		if err := c.writeFrame(f); err != nil {
			t.Fatal(err)
		}
	}
	return s.out.Bytes()
}

func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	b := written(t, frame{kind: request, body: make([]byte, 100)})
	b[2+7], b[2+8], b[2+9], b[2+10] = 0, 0x10, 0, 0 // says 1 MiB
	if n := testing.AllocsPerRun(1, func() {
		c, _ := plainConn(bytes.NewReader(b))
		if f, err := c.readFrame(time.Second); err == nil {
			t.Errorf("a frame that ends early was read: %d bytes", len(f.body))
		}
		if cap(c.record) > 1<<16 {
			t.Errorf("%d bytes kept for a record", cap(c.record))
		}
	}); n > 20 {
		t.Errorf("%v allocations", n)
	}
}

func TestLargeBuffersAreGivenBack(t *testing.T) {
	b := written(t, frame{kind: request, body: make([]byte, wire.MaxFrame)}, frame{kind: ping})
	c, _ := plainConn(bytes.NewReader(b))
	for range 2 {
		if _, err := c.readFrame(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if cap(c.record) > keepBuffer || cap(c.out) > keepBuffer {
		t.Errorf("an idle connection keeps %d and %d bytes", cap(c.record), cap(c.out))
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(written(f, frame{kind: request, id: 7, code: 3, body: []byte("hello")}, frame{kind: ping}))
	f.Add(written(f, frame{kind: response, body: make([]byte, 70_000)}))
	f.Add([]byte{0, 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _ := plainConn(bytes.NewReader(b))
		for {
			got, err := c.readFrame(time.Second)
			if err != nil {
				return
			}
			if len(got.body) > wire.MaxFrame || got.kind < request || got.kind > ping {
				t.Fatalf("frame of kind %d with %d bytes was accepted", got.kind, len(got.body))
			}
		}
	})
}
