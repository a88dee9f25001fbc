// Package server is the platform's end of the channel's handshake, made over a
// hijacked net/http connection with a complete Noise library.
//
// It proves who is there and nothing more: whether that key may do anything is
// the caller's decision. The agent must not import it (see channel/slim).
package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/flynn/noise"

	"livemend.dev/livemend/channel"
)

// MaxKeys bounds how many static keys a server may hold at a time, since each
// is tried on every first message.
const MaxKeys = 8

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

// Key is a server's static X25519 key.
type Key struct{ pair noise.DHKey }

// NewKey makes a Key of a private X25519 key.
func NewKey(private []byte) (Key, error) {
	if len(private) != channel.KeySize {
		return Key{}, fmt.Errorf("a channel key has %d bytes, not %d", channel.KeySize, len(private))
	}
	pair, err := noise.DH25519.GenerateKeypair(strings.NewReader(string(private)))
	if err != nil {
		return Key{}, fmt.Errorf("channel key: %w", err)
	}
	return Key{pair}, nil
}

// Public returns the public half.
func (k Key) Public() [channel.KeySize]byte { return [channel.KeySize]byte(k.pair.Public) }

// ErrRequest is returned by Upgrade for a request that asks for something else;
// it has been answered.
var ErrRequest = errors.New("the request does not ask for the agents' channel")

// Upgrade turns the request into an agent's connection: it answers 101, makes
// the handshake with whichever of keys the agent expects, and waits for the
// agent's confirmation, all within channel.HandshakeTimeout. On success the
// agent has proven RemoteKey. On failure the connection is answered or closed,
// nothing must be written to w, and the error (which wraps
// channel.ErrHandshake when the keys did not fit) is for the log.
func Upgrade(w http.ResponseWriter, r *http.Request, keys []Key) (*channel.Conn, error) {
	if r.Method != http.MethodGet || !hasToken(r.Header.Values("Connection"), "upgrade") ||
		!hasToken(r.Header.Values("Upgrade"), channel.Protocol) {
		w.Header().Set("Upgrade", channel.Protocol)
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "Agents connect here. Nothing else does.", http.StatusUpgradeRequired)
		return nil, ErrRequest
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "This server cannot take over the connection.", http.StatusInternalServerError)
		return nil, fmt.Errorf("hijack: %w", err)
	}
	conn, err := handshake(raw, buffered.Reader, keys)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

func handshake(raw net.Conn, r *bufio.Reader, keys []Key) (*channel.Conn, error) {
	if err := raw.SetDeadline(time.Now().Add(channel.HandshakeTimeout)); err != nil {
		return nil, err
	}
	const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + channel.Protocol + "\r\n\r\n"
	if _, err := io.WriteString(raw, answer); err != nil {
		return nil, err
	}
	var first [2 + channel.InitiationSize]byte
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return nil, fmt.Errorf("first handshake message: %w", err)
	}
	if first[0] != 0 || first[1] != channel.InitiationSize {
		return nil, channel.ErrHandshake
	}
	state, err := accept(first[2:], keys)
	if err != nil {
		return nil, err
	}
	second, receive, send, err := state.WriteMessage([]byte{0, channel.ResponseSize}, nil)
	if err != nil {
		return nil, errors.Join(channel.ErrHandshake, err)
	}
	if len(second) != 2+channel.ResponseSize {
		return nil, fmt.Errorf("second handshake message has %d bytes", len(second))
	}
	if _, err := raw.Write(second); err != nil {
		return nil, err
	}
	conn := channel.NewConn(raw, r, send, receive, state.ChannelBinding(), [channel.KeySize]byte(state.PeerStatic()))
	if err := conn.AwaitConfirmation(); err != nil {
		return nil, fmt.Errorf("confirmation: %w", err)
	}
	return conn, raw.SetDeadline(time.Time{})
}

// accept reads the first message with the key that it was made for.
func accept(first []byte, keys []Key) (*noise.HandshakeState, error) {
	if len(keys) > MaxKeys {
		return nil, fmt.Errorf("more than %d channel keys", MaxKeys)
	}
	for _, key := range keys {
		state, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: suite, Pattern: noise.HandshakeIK, Prologue: []byte(channel.Prologue), StaticKeypair: key.pair,
		})
		if err != nil {
			return nil, err
		}
		if _, _, _, err := state.ReadMessage(nil, first); err == nil {
			return state, nil
		}
	}
	return nil, channel.ErrHandshake
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
