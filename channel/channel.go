// Package channel is the connection between an agent and its platform, once
// both ends have finished a Noise IK handshake: records, frames, and requests
// that are told apart by an id.
//
// The handshake itself is made by channel/slim (agent) and channel/server
// (platform); both end in a Conn. A Peer then carries requests both ways. What
// the requests mean is package wire's business; this package must not look
// into a body, know about patches, or decide who may connect. The agent links
// it: no fmt, no net/http.
package channel

import (
	"errors"
	"time"

	"livemend.dev/livemend/wire"
)

// How a connection is made. The agent opens a TCP connection, asks by HTTP/1.1
// for an upgrade, and both ends then make the handshake and speak records.
const (
	Path     = "/agent/v1"
	Protocol = "livemend" // token of the HTTP headers Upgrade
	Noise    = "Noise_IK_25519_ChaChaPoly_SHA256"
	Prologue = "livemend channel 1\n" // mixed into the handshake: both ends mean this protocol
)

// Sizes, in bytes.
const (
	KeySize        = 32             // X25519, public or private
	InitiationSize = 32 + 48 + 16   // first handshake message: e, encrypted s, empty payload
	ResponseSize   = 32 + 16        // second handshake message: e, empty payload
	MaxRecord      = 65535          // one Noise message
	tagSize        = 16             // of ChaCha20-Poly1305
	maxPlain       = MaxRecord - 16 // content of one record
	keepBuffer     = 4096           // a buffer above this is given back while a connection idles
)

// Limits on requests of one connection.
const (
	MaxCalls   = 8            // requests that one end has open; further calls wait
	maxHandled = 2 * MaxCalls // requests handled at a time: abandoned ones may still run
)

// Timing of a connection.
const (
	HandshakeTimeout = 20 * time.Second // from the TCP connection to the last handshake message
	writeTimeout     = 30 * time.Second // one frame
)

// Errors of this package.
var (
	ErrClosed    = errors.New("the connection to the other end is closed")
	ErrRecord    = errors.New("a record on the connection is not well formed")
	ErrFrame     = errors.New("a frame on the connection is not well formed")
	ErrTampered  = errors.New("a record on the connection was changed on its way")
	ErrHandshake = errors.New("the handshake failed: the other end does not have the expected key, or something between changes the traffic")
)

var (
	errBusy     = &wire.Error{Code: wire.CodeBusy, Message: "too many requests at a time; nothing was done, ask again later"}
	errTooLarge = &wire.Error{Code: wire.CodeMalformed, Message: "the request is larger than one frame may be; nothing was sent"}
	errInternal = &wire.Error{Code: wire.CodeInternal, Message: "the request could not be handled; nothing else is affected, ask again later"}
	errNoMethod = &wire.Error{Code: wire.CodeMalformed, Message: "this end answers no requests"}
)
