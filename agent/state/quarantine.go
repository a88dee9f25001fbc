package state

import (
	"errors"

	"livemend.dev/livemend/wire"
)

// ErrQuarantine says that no further patch can be put into quarantine.
var ErrQuarantine = errors.New("too many live patches are in quarantine on this system")

// Quarantine records, durably before it returns, that an artifact must not be
// applied here again. When it is in force, its phase becomes Reverting in the
// same write.
func (s *Store) Quarantine(q wire.Quarantined) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.patches.clone()
	if _, known := next.quarantine(q.SHA256); !known {
		if len(next.barred) >= wire.MaxQuarantined {
			return ErrQuarantine
		}
		next.barred = append(next.barred, q)
	}
	if i, ok := next.find(q.BuildID); ok && next.admitted[i].Artifact == q.SHA256 {
		next.admitted[i].Phase = Reverting
	}
	return s.storePatches(next)
}

// quarantine is what InQuarantine returns.
func (p patches) quarantine(artifact string) (wire.Quarantined, bool) {
	for _, q := range p.barred {
		if q.SHA256 == artifact {
			return q, true
		}
	}
	return wire.Quarantined{}, false
}

// InQuarantine returns what is known of an artifact in quarantine; false when it
// is not in it.
func (s *Store) InQuarantine(artifact string) (wire.Quarantined, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patches.quarantine(artifact)
}

// Quarantines returns every patch in quarantine, oldest first.
func (s *Store) Quarantines() []wire.Quarantined {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]wire.Quarantined(nil), s.patches.barred...)
}
