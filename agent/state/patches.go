package state

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

// Phase is how far an admitted patch is.
type Phase string

// The phases.
const (
	Staged    Phase = "staged"    // admitted, first application not finished
	Applied   Phase = "applied"   // kept in force, new processes included
	Reverting Phase = "reverting" // being taken off until no process has it
)

// Patch is one admitted patch. There is at most one per BuildID: levels are
// cumulative.
type Patch struct {
	BuildID  string
	Path     string // target
	Level    int64
	Phase    Phase
	Artifact string // object: the image; its SHA-256
	Manifest string // object: the director's signed order
	Targets  string // object: the portal's signed targets metadata that names the artifact
	CVEs     []string
	Previous *Patch // what was in force before and some process may still run, nil when nothing; at most maxPrevious deep
}

// patches is the content of patches.json. Floors and patches are one file, so
// that a level counts as seen exactly when it was admitted.
type patches struct {
	admitted []Patch            // ordered by BuildID
	floors   []floor            // ordered by build-id
	barred   []wire.Quarantined // oldest first
}

type floor struct {
	buildID string
	level   int64
}

const (
	patchesFile = "patches.json"
	objectsDir  = "objects"
	maxPatches  = 10_000 // admitted patches or floors
	maxObject   = 64 << 20
	maxPrevious = 2 // older levels that are kept beside a patch
)

// Patches returns the admitted patches, ordered by BuildID.
func (s *Store) Patches() []Patch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Patch(nil), s.patches.admitted...)
}

// Patch returns the admitted patch for a build-id.
func (s *Store) Patch(buildID string) (Patch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.patches.find(buildID)
	if !ok {
		return Patch{}, false
	}
	return s.patches.admitted[i], true
}

// Floor returns the highest level ever admitted for a build-id, 0 before any.
func (s *Store) Floor(buildID string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patches.floor(buildID)
}

// SetPatch records p as the patch for its build-id and raises the floor to its
// level. The objects that it names must be stored already.
func (s *Store) SetPatch(p Patch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = p.upTo(maxPrevious)
	next := s.patches.clone()
	if i, ok := next.find(p.BuildID); ok {
		next.admitted[i] = p
	} else {
		next.admitted = append(next.admitted[:i:i], append([]Patch{p}, next.admitted[i:]...)...)
	}
	next.raise(p.BuildID, p.Level)
	return s.storePatches(next)
}

// RemovePatch forgets the patch for a build-id, but not its floor.
func (s *Store) RemovePatch(buildID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.patches.clone()
	if i, ok := next.find(buildID); ok {
		next.admitted = append(next.admitted[:i], next.admitted[i+1:]...)
	}
	return s.storePatches(next)
}

// storePatches makes next durable, then in force, and drops objects that
// nothing names any more. The caller holds s.mu.
func (s *Store) storePatches(next patches) error {
	if len(next.admitted) > maxPatches || len(next.floors) > maxPatches {
		return errors.New("too many live patches on one system")
	}
	if err := s.writeJSON(patchesFile, next.value()); err != nil {
		return err
	}
	s.patches = next
	return s.sweep()
}

// PutObject stores b under its SHA-256, which it returns in hexadecimal.
// An object that no SetPatch names is dropped at the next change.
func (s *Store) PutObject(b []byte) (string, error) {
	sum := sha256.Sum256(b)
	name := hextext.Encode(sum[:])
	if have, err := s.Object(name); err == nil && len(have) == len(b) {
		return name, nil
	}
	return name, s.write(filepath.Join(objectsDir, name), b)
}

// Object returns a stored object after comparing it with its name. ErrAbsent
// means that it is not stored, ErrDamaged that the disk gave other bytes.
func (s *Store) Object(name string) ([]byte, error) {
	if raw, ok := hextext.Decode(name); !ok || len(raw) != sha256.Size {
		return nil, ErrAbsent
	}
	path := filepath.Join(s.dir, objectsDir, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxObject {
		return nil, damaged(name, errors.New("larger than any object"))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); hextext.Encode(sum[:]) != name {
		return nil, damaged(name, errors.New("its content is not what was stored"))
	}
	return b, nil
}

// sweep removes what no patch names. The caller holds s.mu.
func (s *Store) sweep() error {
	used := map[string]bool{}
	for i := range s.patches.admitted {
		for p := &s.patches.admitted[i]; p != nil; p = p.Previous {
			used[p.Artifact], used[p.Manifest], used[p.Targets] = true, true, true
		}
	}
	dir := filepath.Join(s.dir, objectsDir)
	names, err := entries(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !used[name] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

func (p patches) clone() patches {
	return patches{append([]Patch(nil), p.admitted...), append([]floor(nil), p.floors...), append([]wire.Quarantined(nil), p.barred...)}
}

func (p patches) find(buildID string) (int, bool) {
	for i := range p.admitted {
		if p.admitted[i].BuildID >= buildID {
			return i, p.admitted[i].BuildID == buildID
		}
	}
	return len(p.admitted), false
}

func (p patches) floor(buildID string) int64 {
	for _, f := range p.floors {
		if f.buildID == buildID {
			return f.level
		}
	}
	return 0
}

func (p *patches) raise(buildID string, level int64) {
	for i := range p.floors {
		if p.floors[i].buildID == buildID {
			p.floors[i].level = max(p.floors[i].level, level)
			return
		}
	}
	p.floors = append(p.floors, floor{buildID, level})
}

func (p patches) value() cjson.Value {
	admitted := make([]cjson.Value, len(p.admitted))
	for i := range p.admitted {
		admitted[i] = p.admitted[i].value()
	}
	floors := make([]cjson.Member, len(p.floors))
	for i, f := range p.floors {
		floors[i] = cjson.F(f.buildID, cjson.Int(f.level))
	}
	return cjson.Object(cjson.F("patches", cjson.Array(admitted...)), cjson.F("floors", cjson.Object(floors...)), cjson.F("quarantined", wire.QuarantinedValue(p.barred)))
}

// upTo returns p with at most depth older levels. It leaves p as it is.
func (p Patch) upTo(depth int) Patch {
	if p.Previous == nil {
		return p
	}
	if depth == 0 {
		p.Previous = nil
		return p
	}
	previous := p.Previous.upTo(depth - 1)
	p.Previous = &previous
	return p
}

func (p *Patch) value() cjson.Value {
	members := []cjson.Member{
		cjson.F("build_id", cjson.String(p.BuildID)),
		cjson.F("path", cjson.String(p.Path)),
		cjson.F("level", cjson.Int(p.Level)),
		cjson.F("phase", cjson.String(string(p.Phase))),
		cjson.F("artifact", cjson.String(p.Artifact)),
		cjson.F("manifest", cjson.String(p.Manifest)),
		cjson.F("targets", cjson.String(p.Targets)),
		cjson.F("cves", cjson.Strings(p.CVEs)),
	}
	if p.Previous != nil {
		members = append(members, cjson.F("previous", p.Previous.value()))
	}
	return cjson.Object(members...)
}

func readPatch(c cjson.Cursor, depth int) Patch {
	p := Patch{
		BuildID: c.Text("build_id", wire.MaxID), Path: c.Text("path", wire.MaxMessage), Level: c.Int("level"),
		Phase:    Phase(c.Text("phase", wire.MaxID)),
		Artifact: c.Text("artifact", wire.MaxID), Manifest: c.Text("manifest", wire.MaxID), Targets: c.Text("targets", wire.MaxID),
		CVEs: c.Texts("cves", patch.MaxFixes, wire.MaxID),
	}
	if depth > 0 && c.Has("previous") {
		previous := readPatch(c.Object("previous"), depth-1)
		p.Previous = &previous
	}
	return p
}

func (s *Store) loadPatches() error {
	v, err := s.readJSON(patchesFile)
	if errors.Is(err, ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	c := cjson.Fields(v)
	for _, item := range c.Items("patches", maxPatches) {
		s.patches.admitted = append(s.patches.admitted, readPatch(c.Nested("patches", item), maxPrevious))
	}
	for _, m := range c.Value("floors").Members() {
		level, ok := m.Value.Int()
		if !ok {
			c.Fail("floors", cjson.ErrField)
		}
		s.patches.floors = append(s.patches.floors, floor{m.Name, level})
	}
	s.patches.barred = wire.ReadQuarantined(c)
	return damaged(patchesFile, c.Err())
}
