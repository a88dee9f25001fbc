package slim

import (
	"crypto/subtle"
	"errors"

	"filippo.io/edwards25519/field"
)

// keySize is the length of X25519 keys and shared secrets.
const keySize = 32

// errLowOrder is a public key that makes the shared secret the same whatever
// the private key is.
var errLowOrder = errors.New("the other end sent a public key that must not be used")

// basePoint is the u-coordinate 9.
var basePoint = [keySize]byte{9}

// x25519 multiplies the point with u-coordinate point by scalar (RFC 7748,
// section 5) in time that does not depend on either. It does not judge the
// result: see shared.
func x25519(scalar, point [keySize]byte) [keySize]byte {
	k := scalar
	k[0] &= 248
	k[31] &= 127
	k[31] |= 64

	var x1, x2, z2, x3, z3 field.Element
	if _, err := x1.SetBytes(point[:]); err != nil {
		return [keySize]byte{} // cannot be: SetBytes refuses only other lengths
	}
	x2.One()
	z2.Zero()
	x3.Set(&x1)
	z3.One()

	var a, aa, b, bb, e, c, d, da, cb field.Element
	swap := 0
	for i := 254; i >= 0; i-- {
		bit := int(k[i/8]>>(i%8)) & 1
		swap ^= bit
		x2.Swap(&x3, swap)
		z2.Swap(&z3, swap)
		swap = bit

		a.Add(&x2, &z2)
		aa.Square(&a)
		b.Subtract(&x2, &z2)
		bb.Square(&b)
		e.Subtract(&aa, &bb)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		da.Multiply(&d, &a)
		cb.Multiply(&c, &b)
		x3.Add(&da, &cb)
		x3.Square(&x3)
		z3.Subtract(&da, &cb)
		z3.Square(&z3)
		z3.Multiply(&x1, &z3)
		x2.Multiply(&aa, &bb)
		z2.Mult32(&e, 121665)
		z2.Add(&aa, &z2)
		z2.Multiply(&e, &z2)
	}
	x2.Swap(&x3, swap)
	z2.Swap(&z3, swap)
	z2.Invert(&z2)
	x2.Multiply(&x2, &z2)
	return [keySize]byte(x2.Bytes())
}

// shared returns the secret of a private and a public key, or errLowOrder.
func shared(private, public [keySize]byte) ([keySize]byte, error) {
	secret := x25519(private, public)
	var zero [keySize]byte
	if subtle.ConstantTimeCompare(secret[:], zero[:]) == 1 {
		return zero, errLowOrder
	}
	return secret, nil
}

// Public returns the public half of a private X25519 key.
func Public(private [keySize]byte) [keySize]byte { return x25519(private, basePoint) }
