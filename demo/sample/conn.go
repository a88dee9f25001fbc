package sample

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Kinds of record, as in echobeat.h.
const (
	kindBeat   = 1
	kindDigest = 2
	kindStatus = 3
)

// Sizes of the protocol.
const (
	maxPayload   = 125 // bytes that a record can carry
	maxAnswer    = 512
	answerHeader = 5 // kind, requests served
	answerWithin = 10 * time.Second
)

// Conn is one connection to the service. It is for one goroutine.
type Conn struct {
	c      net.Conn
	served uint32 // requests that this connection has had answered
}

// Dial connects to the service at addr.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: answerWithin}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{c: c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Beat sends payload and checks that it comes back, and that the service has
// counted every request of this connection: a connection that was silently
// replaced would start again at one.
func (c *Conn) Beat(payload []byte) error {
	got, err := c.exchange(kindBeat, len(payload), payload)
	if err != nil {
		return err
	}
	if string(got) != string(payload) {
		return fmt.Errorf("sent %d bytes, %d others came back", len(payload), len(got))
	}
	return nil
}

// Status asks for the service's line about this connection.
func (c *Conn) Status() (string, error) {
	got, err := c.exchange(kindStatus, 0, nil)
	return string(got), err
}

// exchange sends one record that claims a length and returns the answer's payload.
func (c *Conn) exchange(kind byte, claimed int, payload []byte) ([]byte, error) {
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("a payload of %d bytes does not fit a record", len(payload))
	}
	record := []byte{0, byte(3 + len(payload)), kind, byte(claimed >> 8), byte(claimed)}
	if err := c.c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(append(record, payload...)); err != nil {
		return nil, err
	}
	var prefix [2]byte
	if _, err := io.ReadFull(c.c, prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(prefix[:])
	if n < answerHeader || n > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is none", n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(c.c, answer); err != nil {
		return nil, err
	}
	c.served++
	if served := binary.BigEndian.Uint32(answer[1:]); answer[0] != kind || served != c.served {
		return nil, fmt.Errorf("answer %d of kind %d to request %d of kind %d", served, answer[0], c.served, kind)
	}
	return answer[answerHeader:], nil
}
