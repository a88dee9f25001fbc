// Package call is what a test's host and the first process of its guest say to
// each other over a port of the machine: a stream of requests one way and of
// replies the other, each preceded by its length as package gob does it. It is
// for tests; it must not be linked into a product, and neither end is protected
// from the other.
package call

import (
	"encoding/gob"
	"io"
	"sync"
	"time"
)

// Port is the name of the virtio port that carries the stream.
const Port = "livemend.guest"

// Command is a program to run in the guest.
type Command struct {
	Args    []string      // the program's path, and its arguments
	Env     []string      // name=value
	UID     uint32        // also the group
	Dir     string        // working folder, / when empty
	Stdin   []byte        //
	Timeout time.Duration // after which it is killed; 0 is a minute
}

// Result is how a program ended.
type Result struct {
	Exit     int  // exit status, -1 when a signal ended it
	Signal   int  // that ended it, 0 for none
	TimedOut bool // it was killed because its time was over
	Stdout   []byte
	Stderr   []byte
}

// File is a file of the guest.
type File struct {
	Path string
	Data []byte
	Mode uint32
}

// Request asks for one thing. Kill names the request whose program has to end.
type Request struct {
	ID       uint64
	Run      *Command
	Put      *File
	Get      string
	Kill     uint64
	PowerOff bool
}

// Reply answers the request with the same ID. A program gives two: PID when it
// started and Done when it ended. The first reply of all has ID 0 and says that
// the guest is ready.
type Reply struct {
	ID   uint64
	PID  int
	Done *Result
	Data []byte
	Err  string
}

// Stream sends and receives. Send may be called concurrently.
type Stream struct {
	mu  sync.Mutex
	enc *gob.Encoder
	dec *gob.Decoder
}

// NewStream returns a stream over c.
func NewStream(c io.ReadWriter) *Stream {
	return &Stream{enc: gob.NewEncoder(c), dec: gob.NewDecoder(c)}
}

// Send sends a *Request or a *Reply.
func (s *Stream) Send(v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enc.Encode(v)
}

// Receive reads into a *Request or a *Reply.
func (s *Stream) Receive(v any) error { return s.dec.Decode(v) }
