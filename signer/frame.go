package signer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"livemend.dev/livemend/trust"
)

// maxFrame bounds one request or answer: a snapshot with its base64 and names.
const maxFrame = 2 * trust.MaxSnapshot

// request asks for the child's keys (no Key) or for a signature.
type request struct {
	Key     string `json:"key,omitempty"` // public half
	Message []byte `json:"message,omitempty"`
}

// answer holds keys, or a signature, or why not.
type answer struct {
	Keys      []trust.PublicKey `json:"keys,omitempty"`
	Signature []byte            `json:"signature,omitempty"`
	Refused   string            `json:"refused,omitempty"`
}

// writeFrame writes v as JSON with its length, four bytes, in front.
func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing a frame: %w", err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("%w: %d bytes in one frame", errFrame, len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// readFrame returns io.EOF when the other side closed between two frames.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("%w: %d bytes announced", errFrame, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: not JSON of the agreed form", errFrame)
	}
	return nil
}
