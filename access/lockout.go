package access

import "time"

// How many wrong attempts are free, how fast they are forgiven, and how many
// are remembered at most. A name alone and an address alone have more free ones:
// else anybody could lock somebody out, or everybody behind one proxy.
const (
	FreeAttempts  = 5  // with one name from one address
	FreeOfOne     = 50 // with one name from anywhere, or from one address with any name
	ForgiveEvery  = time.Minute
	maxRemembered = 100
)

// Bucket remembers wrong attempts of one name or address. It fills with each
// and drains with time. The zero value is empty. Pure: the caller stores it and
// says what time it is.
type Bucket struct {
	Level   int       // wrong attempts not forgiven yet
	Updated time.Time // when Level was true
}

// Drained returns the bucket as it is at now.
func (b Bucket) Drained(now time.Time) Bucket {
	if b.Level == 0 || now.Before(b.Updated) {
		return b
	}
	n := int(now.Sub(b.Updated) / ForgiveEvery)
	if n >= b.Level {
		return Bucket{}
	}
	return Bucket{Level: b.Level - n, Updated: b.Updated.Add(time.Duration(n) * ForgiveEvery)}
}

// Locked reports whether no further attempt is allowed at now, when free wrong
// ones are.
func (b Bucket) Locked(now time.Time, free int) bool { return b.Drained(now).Level >= free }

// Failed returns the bucket after one more wrong attempt at now.
func (b Bucket) Failed(now time.Time) Bucket {
	b = b.Drained(now)
	if b.Level == 0 {
		b.Updated = now
	}
	b.Level = min(b.Level+1, maxRemembered)
	return b
}
