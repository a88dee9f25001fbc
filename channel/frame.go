package channel

import (
	"encoding/binary"

	"livemend.dev/livemend/wire"
)

// kind says what a frame is.
type kind uint8

const (
	request  kind = 1 // code is the method
	response kind = 2 // answers the request of the same id
	failure  kind = 3 // code is a wire.Code, the body its message
	cancel   kind = 4 // the asker no longer wants the answer
	ping     kind = 5 // this end is alive
)

const headerSize = 11 // kind, id, code, length of the body

type frame struct {
	kind kind
	id   uint32
	code uint16
	body []byte
}

func (f frame) header() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, byte(f.kind))
	b = binary.BigEndian.AppendUint32(b, f.id)
	b = binary.BigEndian.AppendUint16(b, f.code)
	return binary.BigEndian.AppendUint32(b, uint32(len(f.body)))
}

// parseHeader returns the frame without its body and the body's length.
func parseHeader(b [headerSize]byte) (frame, int, error) {
	f := frame{kind: kind(b[0]), id: binary.BigEndian.Uint32(b[1:]), code: binary.BigEndian.Uint16(b[5:])}
	n := binary.BigEndian.Uint32(b[7:])
	limit := uint32(0)
	switch f.kind {
	case request, response:
		limit = wire.MaxFrame
	case failure:
		limit = wire.MaxMessage
	case cancel, ping:
	default:
		return frame{}, 0, ErrFrame
	}
	if n > limit {
		return frame{}, 0, ErrFrame
	}
	return f, int(n), nil
}
