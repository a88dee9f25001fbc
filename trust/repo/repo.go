// Package repo writes what package trust reads: keys, root and targets
// metadata, and the portal's published repository; and the same for a tenant's
// director. It must not decide what may be believed: everything it is given
// and everything it publishes passes through package trust.
package repo

import (
	"context"
	"errors"

	"livemend.dev/livemend/trust"
)

// Errors with a documented meaning.
var (
	ErrKeyFile   = errors.New("not a usable key file")
	ErrSpec      = errors.New("the description of the document is not valid")
	ErrDocument  = errors.New("not a document of the expected kind")
	ErrPublished = errors.New("the repository refuses to publish this")
)

// Signer signs with one private key.
type Signer interface {
	Public() trust.PublicKey
	Sign(ctx context.Context, message []byte) ([]byte, error)
}
