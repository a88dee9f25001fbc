package state

import (
	"errors"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/wire"
)

// Quarantined is one patch that must never be applied here again.
type Quarantined struct {
	BuildID  string
	Path     string
	Level    int64
	Artifact string // SHA-256 of the image
	Reason   string // for people
	Time     int64  // seconds since 1970
}

// maxQuarantined bounds them: no patch is admitted any more when it is reached.
const maxQuarantined = 1000

// ErrQuarantine says that no further patch can be put into quarantine.
var ErrQuarantine = errors.New("too many live patches are in quarantine on this system")

// Quarantine records, durably before it returns, that an artifact must not be
// applied here again. When it is in force, its phase becomes Reverting in the
// same write.
func (s *Store) Quarantine(q Quarantined) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.patches.clone()
	if _, known := next.quarantine(q.Artifact); !known {
		if len(next.barred) >= maxQuarantined {
			return ErrQuarantine
		}
		next.barred = append(next.barred, q)
	}
	if i, ok := next.find(q.BuildID); ok && next.admitted[i].Artifact == q.Artifact {
		next.admitted[i].Phase = Reverting
	}
	return s.storePatches(next)
}

// quarantine is what InQuarantine returns.
func (p patches) quarantine(artifact string) (Quarantined, bool) {
	for _, q := range p.barred {
		if q.Artifact == artifact {
			return q, true
		}
	}
	return Quarantined{}, false
}

// InQuarantine returns what is known of an artifact in quarantine; false when it
// is not in it.
func (s *Store) InQuarantine(artifact string) (Quarantined, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patches.quarantine(artifact)
}

// Quarantines returns every patch in quarantine, oldest first.
func (s *Store) Quarantines() []Quarantined {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Quarantined(nil), s.patches.barred...)
}

func quarantinedValue(list []Quarantined) cjson.Value {
	out := make([]cjson.Value, len(list))
	for i, q := range list {
		out[i] = cjson.Object(
			cjson.F("build_id", cjson.String(q.BuildID)),
			cjson.F("path", cjson.String(q.Path)),
			cjson.F("level", cjson.Int(q.Level)),
			cjson.F("artifact", cjson.String(q.Artifact)),
			cjson.F("reason", cjson.String(q.Reason)),
			cjson.F("time", cjson.Int(q.Time)))
	}
	return cjson.Array(out...)
}

// readQuarantined reads the list; a state from before there was one has none.
func readQuarantined(c cjson.Cursor) (out []Quarantined) {
	if !c.Has("quarantined") {
		return nil
	}
	for _, item := range c.Items("quarantined", maxQuarantined) {
		q := c.Nested("quarantined", item)
		out = append(out, Quarantined{BuildID: q.Text("build_id", wire.MaxID), Path: q.Text("path", wire.MaxMessage), Level: q.Int("level"),
			Artifact: q.Text("artifact", wire.MaxID), Reason: q.Text("reason", wire.MaxMessage), Time: q.Int("time")})
	}
	return out
}
