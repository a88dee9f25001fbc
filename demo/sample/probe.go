package sample

import (
	"bytes"
	"context"
	"fmt"
)

// overread is the length that a probe claims: everything that the service's
// arena holds, as an attacker would find it out.
const overread = 176

// Finding is what a probe saw.
type Finding struct {
	Leaked bool
	Text   string // what came back, for people
}

// Probe asks the service at addr for more bytes than it sends, with both kinds
// of request that the bug is in. It is leaking when secret comes back. A
// service that answers neither as the bug nor as the fix would is an error.
func Probe(ctx context.Context, addr, secret string) (Finding, error) {
	c, err := Dial(ctx, addr)
	if err != nil {
		return Finding{}, err
	}
	defer c.Close()
	sent := []byte("probe")
	beat, err := c.exchange(kindBeat, overread, sent)
	if err != nil {
		return Finding{}, err
	}
	digest, err := c.exchange(kindDigest, overread, sent)
	if err != nil {
		return Finding{}, err
	}
	at := bytes.Index(beat, []byte(secret))
	long := bytes.HasSuffix(digest, fmt.Appendf(nil, " over %d bytes", overread))
	short := bytes.HasSuffix(digest, fmt.Appendf(nil, " over %d bytes", len(sent)))
	switch {
	case secret != "" && at >= 0 && long:
		return Finding{Leaked: true, Text: fmt.Sprintf("sent %d bytes, got %d back with %q", len(sent), len(beat), beat[at:at+len(secret)])}, nil
	case bytes.Equal(beat, sent) && short:
		return Finding{Text: fmt.Sprintf("sent %d bytes, got the same %d back and nothing else", len(sent), len(beat))}, nil
	}
	return Finding{}, fmt.Errorf("the probe's answers are neither of the bug nor of the fix: %d bytes, %q", len(beat), digest)
}
