package channel

import (
	"io"
	"sync"
	"time"
)

// Cipher is one direction of a finished handshake. Each message uses the next
// nonce, so calls must be made in the order of the messages.
type Cipher interface {
	Encrypt(out, ad, plaintext []byte) ([]byte, error)
	Decrypt(out, ad, ciphertext []byte) ([]byte, error)
}

// Transport is what a Conn runs over: a net.Conn on servers, the os.File of a
// socket in the agent.
type Transport interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Conn is a connection whose both ends have proven their static keys. Make a
// Peer of it to use it. Close may be called at any time by any goroutine.
type Conn struct {
	raw    Transport
	in     io.Reader
	hash   []byte
	remote [KeySize]byte

	writing sync.Mutex
	send    Cipher
	out     []byte

	receive Cipher // used by the one reading goroutine
	record  []byte
	unread  []byte // rest of the last record's content

	closing  sync.Once
	closeErr error
}

// NewConn wraps raw after a handshake. What raw's reader has buffered already
// is read through in. hash is the handshake hash, remote the other end's
// static public key.
func NewConn(raw Transport, in io.Reader, send, receive Cipher, hash []byte, remote [KeySize]byte) *Conn {
	return &Conn{raw: raw, in: in, send: send, receive: receive, hash: hash, remote: remote}
}

// HandshakeHash names this connection: both ends compute the same value and no
// other connection has it. Proofs are bound to it.
func (c *Conn) HandshakeHash() []byte { return append([]byte(nil), c.hash...) }

// RemoteKey returns the other end's static X25519 public key.
func (c *Conn) RemoteKey() [KeySize]byte { return c.remote }

// Close ends the connection. Calls after the first return the first's error.
func (c *Conn) Close() error {
	c.closing.Do(func() { c.closeErr = c.raw.Close() })
	return c.closeErr
}

// Confirm is the initiator's last step: an empty record that only somebody who
// has the handshake's keys can write. Without it a first handshake message
// that was recorded earlier would look like its author.
func (c *Conn) Confirm() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writeRecord(nil)
}

// AwaitConfirmation is the responder's last step; see Confirm. The caller has
// set a deadline on the connection.
func (c *Conn) AwaitConfirmation() error {
	if err := c.readRecord(); err != nil {
		return err
	}
	if len(c.unread) != 0 {
		return ErrRecord
	}
	return nil
}

// writeRecord seals and writes one record. The caller holds c.writing.
func (c *Conn) writeRecord(plain []byte) error {
	n := len(plain) + tagSize
	out, err := c.send.Encrypt(append(c.out[:0], byte(n>>8), byte(n)), nil, plain)
	if err != nil {
		return err
	}
	if c.out = out; cap(out) > keepBuffer {
		c.out = nil
	}
	_, err = c.raw.Write(out)
	return err
}

// readRecord reads and opens the next record into c.unread.
func (c *Conn) readRecord() error {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return err
	}
	n := int(head[0])<<8 | int(head[1])
	if n < tagSize {
		return ErrRecord
	}
	if cap(c.record) < n || cap(c.record) > keepBuffer && n <= keepBuffer {
		c.record = make([]byte, n)
	}
	buf := c.record[:n]
	if _, err := io.ReadFull(c.in, buf); err != nil {
		return noEOF(err)
	}
	plain, err := c.receive.Decrypt(buf[:0], nil, buf)
	if err != nil {
		return ErrTampered
	}
	c.unread = plain
	return nil
}

// writeFrame writes f, split into records. After an error the connection
// cannot be used any more.
func (c *Conn) writeFrame(f frame) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.raw.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	head := f.header()
	first := min(len(f.body), maxPlain-len(head))
	if err := c.writeRecord(append(head[:len(head):len(head)], f.body[:first]...)); err != nil {
		return err
	}
	for rest := f.body[first:]; len(rest) > 0; {
		n := min(len(rest), maxPlain)
		if err := c.writeRecord(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// readFrame reads the next frame. The other end has silence to send the next
// record each time.
func (c *Conn) readFrame(silence time.Duration) (frame, error) {
	head, err := c.readPlain(make([]byte, 0, headerSize), headerSize, silence)
	if err != nil {
		return frame{}, err
	}
	f, n, err := parseHeader([headerSize]byte(head))
	if err != nil {
		return frame{}, err
	}
	f.body, err = c.readPlain(nil, n, silence)
	return f, noEOF(err)
}

// readPlain appends content to buf until it has n bytes. It takes memory only
// as content arrives: an announced length costs nothing.
func (c *Conn) readPlain(buf []byte, n int, silence time.Duration) ([]byte, error) {
	for len(buf) < n {
		if len(c.unread) == 0 {
			if err := c.raw.SetReadDeadline(time.Now().Add(silence)); err != nil {
				return nil, err
			}
			if err := c.readRecord(); err != nil {
				if len(buf) > 0 {
					err = noEOF(err)
				}
				return nil, err
			}
			if len(c.unread) == 0 {
				return nil, ErrRecord // an empty record has no place after the handshake
			}
		}
		take := min(n-len(buf), len(c.unread))
		buf = append(buf, c.unread[:take]...)
		c.unread = c.unread[take:]
	}
	return buf, nil
}

// noEOF turns an end in the middle of something into what it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
