package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"strconv"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
)

const (
	manifestWhat = "manifest"
	maxID        = 200     // bytes of an identifier in a manifest
	maxSeconds   = 1 << 40 // seconds since 1970: the year 36812, and no sum overflows
)

// MaxClockSkew is how far the clock of the one who issued a manifest may be
// ahead of the clock of the one who checks it.
const MaxClockSkew = 5 * time.Minute

// Identity is the system that a manifest must be for.
type Identity struct {
	SystemID string
	KeyHash  string // HashKey of the system's identity key
}

// HashKey returns the SHA-256 of an identity public key in lower-case hex.
func HashKey(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hextext.Encode(sum[:])
}

// Value returns the manifest as the value that is signed.
func (m *Manifest) Value() cjson.Value {
	return cjson.Object(
		cjson.F("_type", cjson.String("manifest")),
		cjson.F("spec_version", cjson.String(SpecVersion)),
		cjson.F("system_id", cjson.String(m.SystemID)),
		cjson.F("key_hash", cjson.String(m.KeyHash)),
		cjson.F("counter", cjson.Int(m.Counter)),
		cjson.F("job", cjson.String(m.Job)),
		cjson.F("task", cjson.String(m.Task)),
		cjson.F("action", cjson.String(string(m.Action))),
		cjson.F("path", cjson.String(m.Path)),
		cjson.F("length", cjson.Int(m.Length)),
		cjson.F("sha256", cjson.String(m.SHA256)),
		cjson.F("level", cjson.Int(m.Level)),
		cjson.F("build_id", cjson.String(m.BuildID)),
		cjson.F("scanner", cjson.String(m.Scanner)),
		cjson.F("not_after", cjson.Int(m.NotAfter)),
		cjson.F("issued", cjson.Int(m.Issued)))
}

// ParseManifest reads a manifest's signed value and checks it with Check. It
// verifies no signature.
func ParseManifest(v cjson.Value) (*Manifest, error) {
	c := cjson.Fields(v)
	if c.Text("_type", maxWord) != "manifest" && c.Err() == nil {
		return nil, refuse(manifestWhat, ErrMalformed, "_type is not manifest")
	}
	// The version is required so that a later form can be told apart.
	c.Text("spec_version", maxWord)
	m := &Manifest{
		SystemID: c.Text("system_id", maxID),
		KeyHash:  c.Text("key_hash", maxHash),
		Counter:  c.Int("counter"),
		Job:      c.Text("job", maxID),
		Task:     c.Text("task", maxID),
		Action:   Action(c.Text("action", maxWord)),
		Path:     c.Text("path", MaxPath),
		Length:   c.Int("length"),
		SHA256:   c.Text("sha256", maxHash),
		Level:    c.Int("level"),
		BuildID:  c.Text("build_id", maxID),
		Scanner:  c.Text("scanner", maxID),
		NotAfter: c.Int("not_after"),
		Issued:   c.Int("issued"),
	}
	if err := c.Err(); err != nil {
		return nil, refuse(manifestWhat, ErrMalformed, err.Error())
	}
	return m, m.Check()
}

// Check returns an error that wraps ErrMalformed when the manifest may never be
// signed or obeyed whatever the time, and ErrNotFresh when it would be
// admitted for longer than MaxManifestLife.
//
// Apply and Revert name a patch: path, hash, level and build-id. Scan names a
// scanner and, when the scanner reads content, the content's path, length and
// hash.
func (m *Manifest) Check() error {
	bad := func(detail string) error { return refuse(manifestWhat, ErrMalformed, detail) }
	switch {
	case m.SystemID == "" || len(m.SystemID) > maxID:
		return bad("the system is missing or its name too long")
	case !hextext.Is(m.KeyHash, sha256.Size):
		return bad("the key hash is not a SHA-256")
	case m.Counter < 1:
		return bad("the counter is below 1")
	case m.Task == "" || len(m.Task) > maxID || len(m.Job) > maxID:
		return bad("the task is missing or a name too long")
	case m.Issued < 1 || m.Issued > maxSeconds || m.NotAfter < m.Issued || m.NotAfter > maxSeconds:
		return bad("its times are impossible")
	case m.NotAfter-m.Issued > int64(MaxManifestLife/time.Second):
		return refuse(manifestWhat, ErrNotFresh, "it would be admitted for longer than an hour")
	}
	switch m.Action {
	case Apply, Revert:
		if m.Scanner != "" {
			return bad("it names a scanner but does not scan")
		}
		if m.Level < 1 || !patch.BuildID(m.BuildID).Valid() {
			return bad("the level or the build-id is not valid")
		}
		return m.checkFile()
	case Scan:
		if m.Scanner == "" || len(m.Scanner) > maxID {
			return bad("the scanner is missing or its name too long")
		}
		if m.Level != 0 || m.BuildID != "" {
			return bad("a scan names no patch")
		}
		if m.Path == "" && m.SHA256 == "" && m.Length == 0 {
			return nil // a scanner that needs no content
		}
		return m.checkFile()
	}
	return bad("the action is unknown")
}

func (m *Manifest) checkFile() error {
	if !ValidPath(m.Path) || !hextext.Is(m.SHA256, sha256.Size) || m.Length < 0 || m.Length > MaxLength {
		return refuse(manifestWhat, ErrMalformed, "path, length or hash is not valid")
	}
	return nil
}

// VerifyManifest decides whether who may carry out the manifest at now: enough
// director keys signed it, it is for this system and its key, its counter is
// above lastCounter, it was issued (a clock skew of MaxClockSkew is forgiven)
// and is not past its time. The director root must be current too.
func VerifyManifest(envelope []byte, root *DirectorRoot, who Identity, lastCounter int64, now time.Time) (*Manifest, error) {
	m, err := RecallManifest(envelope, root, who)
	if err != nil {
		return nil, err
	}
	if !now.Before(root.Expires) {
		return nil, refuse(directorRootWhat, ErrExpired, "since "+FormatTime(root.Expires))
	}
	if m.Counter <= lastCounter {
		return nil, refuse(manifestWhat, ErrReplay,
			"counter "+strconv.FormatInt(m.Counter, 10)+", last was "+strconv.FormatInt(lastCounter, 10))
	}
	if now.Unix() > m.NotAfter {
		return nil, refuse(manifestWhat, ErrNotFresh, "it ended "+FormatTime(time.Unix(m.NotAfter, 0)))
	}
	if m.Issued > now.Add(MaxClockSkew).Unix() {
		return nil, refuse(manifestWhat, ErrNotFresh, "it is issued in the future: compare the clocks")
	}
	return m, nil
}

// RecallManifest verifies a manifest that was admitted before: its signatures
// and the system it is for, but neither counter nor time. It is for boot and
// for new processes; never use it to admit something new.
func RecallManifest(envelope []byte, root *DirectorRoot, who Identity) (*Manifest, error) {
	e, err := parseEnvelope(manifestWhat, envelope, MaxManifest)
	if err != nil {
		return nil, err
	}
	if err := e.verify(root.Keys, root.Director, root.schemes); err != nil {
		return nil, err
	}
	m, err := ParseManifest(e.Signed)
	if err != nil {
		return nil, err
	}
	if m.SystemID != who.SystemID || m.KeyHash != who.KeyHash {
		return nil, refuse(manifestWhat, ErrWrongSystem, "")
	}
	return m, nil
}

// Agree returns ErrDisagree unless the manifest and the repository's entry t
// name the same file, and, for a patch, the same level of the same target. md
// is the patch metadata of t; nil when t is no patch. A revert needs the
// director alone, so there is nothing to agree on.
func Agree(m *Manifest, t Target, md *patch.Metadata) error {
	differ := func(field string) error { return refuse(manifestWhat, ErrDisagree, field+" differs") }
	switch {
	case m.Action == Revert:
		return nil
	case m.Path != t.Path:
		return differ("path")
	case m.Length != t.Length:
		return differ("length")
	case t.SHA256 == "" || m.SHA256 != t.SHA256:
		return differ("hash")
	case m.Action == Scan && md != nil:
		return differ("kind of file")
	case m.Action == Scan:
		return nil
	case m.Action != Apply || md == nil:
		return differ("kind of file")
	case m.Level != md.Level:
		return differ("level")
	case m.BuildID != string(md.Target.BuildID):
		return differ("build-id")
	}
	return nil
}
