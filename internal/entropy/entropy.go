// Package entropy reads random bytes from the kernel.
//
// It is crypto/rand for the agent: that package brings a generator of its own
// with block ciphers, hashes and their self-tests, which the agent's package
// has no room for. Programs other than the agent use crypto/rand.
package entropy

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Read fills b with random bytes that are fit for keys. Early at boot it waits
// until the kernel has gathered enough.
func Read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Getrandom(b, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}
