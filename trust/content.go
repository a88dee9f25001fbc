package trust

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"io"
	"strconv"

	"livemend.dev/livemend/internal/hextext"
)

// Content verifies bytes as they arrive: Write them in order, then Close. It
// never holds more than one Write's bytes. Not for concurrent use.
type Content struct {
	what   string
	left   int64
	want   [2]string
	hashes [2]hash.Hash // SHA-256 and SHA-512; nil when not promised
}

// NewContent starts verifying the content of t.
func NewContent(t Target) *Content {
	return newContent("target "+t.Path, t.Length, t.SHA256, t.SHA512)
}

func newContent(what string, length int64, sum256, sum512 string) *Content {
	c := &Content{what: what, left: length, want: [2]string{sum256, sum512}}
	if sum256 != "" {
		c.hashes[0] = sha256.New()
	}
	if sum512 != "" {
		c.hashes[1] = sha512.New()
	}
	return c
}

// Write takes the next bytes. It takes none of them and returns ErrLength when
// they are more than was signed, so an endless download ends.
func (c *Content) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		return 0, refuse(c.what, ErrLength, "more bytes than were signed")
	}
	c.left -= int64(len(p))
	for _, h := range c.hashes {
		if h != nil {
			h.Write(p) // hash.Hash never returns an error
		}
	}
	return len(p), nil
}

// Close returns ErrLength or ErrHash unless exactly the signed bytes were
// written. It may be called again.
func (c *Content) Close() error {
	if c.left != 0 {
		return refuse(c.what, ErrLength, strconv.FormatInt(c.left, 10)+" bytes are missing")
	}
	for i, h := range c.hashes {
		if h != nil && hextext.Encode(h.Sum(nil)) != c.want[i] {
			return refuse(c.what, ErrHash, "")
		}
	}
	return nil
}

// CheckContent reads r to its end and returns ErrLength or ErrHash unless it
// holds exactly the signed bytes of t.
func CheckContent(t Target, r io.Reader) error {
	c := NewContent(t)
	if _, err := io.Copy(c, r); err != nil {
		return err
	}
	return c.Close()
}
