// Package slim is the agent's end of the channel's handshake: Noise IK with
// X25519, ChaCha20-Poly1305 and SHA-256, and nothing else. A complete Noise
// library with its other ciphers costs the agent's package 100 kB more.
//
// It is tested against a complete library in both roles. It must not be used by
// servers, which have package channel/server, and must not import fmt,
// net/http, crypto/ecdh or x/crypto/curve25519.
package slim

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/http1"
	"livemend.dev/livemend/internal/entropy"
)

// MaxServers bounds how many server keys Dial tries.
const MaxServers = 8

var errNoServer = errors.New("there is no server key to connect with: enrol again with the platform's trust digest")

// Session is a connection of the agent and the server key that answered.
type Session struct {
	*channel.Conn
}

// ServerKey returns the static key that the server proved to have.
func (s Session) ServerKey() [keySize]byte { return s.RemoteKey() }

// Dial connects to the platform at url (http://name:port) and makes the
// handshake with the agent's private key. servers are the keys that the
// platform may have; they are tried in their order, each on a connection of
// its own, since the first message is sealed for one of them.
// channel.ErrHandshake means that something answered, but nobody with one of
// these keys.
func Dial(ctx context.Context, url string, private [keySize]byte, servers [][keySize]byte) (Session, error) {
	at, err := http1.Parse(url)
	if err != nil {
		return Session{}, err
	}
	if len(servers) == 0 || len(servers) > MaxServers {
		return Session{}, errNoServer
	}
	for _, server := range servers {
		var conn *channel.Conn
		if conn, err = dial(ctx, at, private, server); err == nil {
			return Session{conn}, nil
		}
		if !errors.Is(err, channel.ErrHandshake) || ctx.Err() != nil {
			break
		}
	}
	return Session{}, err
}

func dial(ctx context.Context, at http1.Server, private, server [keySize]byte) (*channel.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, channel.HandshakeTimeout)
	defer stop()
	raw, r, err := http1.Upgrade(ctx, at, channel.Path, channel.Protocol)
	if err != nil {
		return nil, err
	}
	cut := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // a closed connection needs none
	conn, err := handshake(raw, r, private, server)
	if !cut() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// handshake is the initiator's role of
//
//	<- s
//	-> e, es, s, ss
//	<- e, ee, se
//
// followed by the confirmation of package channel.
func handshake(raw *os.File, r *bufio.Reader, private, server [keySize]byte) (*channel.Conn, error) {
	var ephemeral [keySize]byte
	if err := entropy.Read(ephemeral[:]); err != nil {
		return nil, err
	}
	i, first, err := initiate(private, ephemeral, server)
	if err != nil {
		return nil, err
	}
	if _, err := raw.Write(append([]byte{0, channel.InitiationSize}, first...)); err != nil {
		return nil, err
	}
	var second [2 + channel.ResponseSize]byte
	if _, err := io.ReadFull(r, second[:]); err != nil {
		// A server without the key closes the connection.
		return nil, errors.Join(channel.ErrHandshake, err)
	}
	if second[0] != 0 || second[1] != channel.ResponseSize {
		return nil, channel.ErrHandshake
	}
	send, receive, err := i.finish([channel.ResponseSize]byte(second[2:]))
	if err != nil {
		return nil, err
	}
	conn := channel.NewConn(raw, r, send, receive, i.hash[:], server)
	return conn, conn.Confirm()
}

// initiator is a handshake between its two messages.
type initiator struct {
	symmetricState
	private   [keySize]byte
	ephemeral [keySize]byte
}

// initiate makes the first message.
func initiate(private, ephemeral, server [keySize]byte) (*initiator, []byte, error) {
	i := &initiator{symmetricState: *newSymmetricState(), private: private, ephemeral: ephemeral}
	i.mixHash(server[:])
	e := Public(ephemeral)
	i.mixHash(e[:])
	message := append(make([]byte, 0, channel.InitiationSize), e[:]...)
	if err := i.mixKey(ephemeral, server); err != nil {
		return nil, nil, err
	}
	own := Public(private)
	message, err := i.sealAndHash(message, own[:])
	if err != nil {
		return nil, nil, err
	}
	if err := i.mixKey(private, server); err != nil {
		return nil, nil, err
	}
	message, err = i.sealAndHash(message, nil)
	return i, message, err
}

// finish reads the second message and returns the ciphers of both directions.
func (i *initiator) finish(message [channel.ResponseSize]byte) (send, receive *cipherState, err error) {
	e := [keySize]byte(message[:])
	i.mixHash(e[:])
	if err := i.mixKey(i.ephemeral, e); err != nil {
		return nil, nil, errors.Join(channel.ErrHandshake, err)
	}
	if err := i.mixKey(i.private, e); err != nil {
		return nil, nil, errors.Join(channel.ErrHandshake, err)
	}
	if _, err := i.openAndHash(message[keySize:]); err != nil {
		return nil, nil, channel.ErrHandshake
	}
	return i.split()
}
