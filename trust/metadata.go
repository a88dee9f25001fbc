package trust

import (
	"strconv"
	"strings"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// Names of the top-level roles and of their files.
const (
	roleRoot      = "root"
	roleTimestamp = "timestamp"
	roleSnapshot  = "snapshot"
	roleTargets   = "targets"

	snapshotFile = "snapshot.json"
	targetsFile  = "targets.json"
)

// Limits on the content of metadata.
const (
	MaxPath    = 512     // bytes of a target path
	MaxMeta    = 4096    // files that one snapshot lists
	MaxEntries = 100_000 // targets in one targets file
	MaxLength  = 1 << 40 // bytes of one target
	maxName    = 512     // bytes of a metadata file's name
	maxHash    = 256     // characters of a hash
)

// head is what every role's metadata starts with.
type head struct {
	version int64
	expires time.Time
}

// open parses one role's metadata and reads its head. The caller verifies
// signatures before it believes anything.
func open(role string, b []byte, max int) (*Envelope, cjson.Cursor, head, error) {
	what := role + " metadata"
	e, err := parseEnvelope(what, b, max)
	if err != nil {
		return nil, cjson.Cursor{}, head{}, err
	}
	c := cjson.Fields(e.Signed)
	h, err := readHead(what, c, role)
	return e, c, h, err
}

func readHead(what string, c cjson.Cursor, docType string) (head, error) {
	if got := c.Text("_type", maxWord); got != docType {
		return head{}, refuse(what, ErrMalformed, "_type is not "+docType)
	}
	// 1.x of the specification may add fields, never change the meaning of one.
	if v := c.Text("spec_version", maxWord); v != "1.0" && !strings.HasPrefix(v, "1.") {
		return head{}, refuse(what, ErrMalformed, "spec_version is not 1.x")
	}
	h := head{version: c.Int("version")}
	expires, ok := parseTime(c.Text("expires", maxWord))
	switch {
	case c.Err() != nil:
		return head{}, refuse(what, ErrMalformed, c.Err().Error())
	case !ok:
		return head{}, refuse(what, ErrMalformed, "expires is not a time like 2030-01-31T00:00:00Z")
	case h.version < 1:
		return head{}, refuse(what, ErrMalformed, "the version is below 1")
	}
	h.expires = expires
	return h, nil
}

func (h head) fresh(role string, now time.Time) error {
	if now.Before(h.expires) {
		return nil
	}
	return refuse(role+" metadata", ErrExpired, "since "+FormatTime(h.expires))
}

// fileMeta is what one metadata file says of another.
type fileMeta struct {
	version int64
	length  int64 // -1: not said
	sha256  string
	sha512  string
}

func parseFileMeta(c cjson.Cursor, field string, v cjson.Value) fileMeta {
	f := c.Nested(field, v)
	m := fileMeta{version: f.Int("version"), length: -1}
	if m.version < 1 {
		c.Fail(field, cjson.ErrField)
	}
	if f.Has("length") {
		if m.length = f.Int("length"); m.length < 0 {
			c.Fail(field, cjson.ErrField)
		}
	}
	if f.Has("hashes") {
		m.sha256, m.sha512 = parseHashes(c, f.Value("hashes"))
	}
	return m
}

// parseHashes reads the hashes it knows. An object without any of them would
// look like a promise and check nothing, so it is refused.
func parseHashes(c cjson.Cursor, v cjson.Value) (sha256, sha512 string) {
	h := c.Nested("hashes", v)
	sha256, sha512 = h.OptText("sha256", maxHash), h.OptText("sha512", maxHash)
	if sha256 == "" && sha512 == "" || sha256 != "" && !hextext.Is(sha256, 32) || sha512 != "" && !hextext.Is(sha512, 64) {
		c.Fail("hashes", cjson.ErrField)
	}
	return sha256, sha512
}

// check compares a file with what was announced of it.
func (m fileMeta) check(what string, b []byte) error {
	length := m.length
	if length < 0 {
		length = int64(len(b))
	}
	c := newContent(what, length, m.sha256, m.sha512)
	if _, err := c.Write(b); err != nil {
		return err
	}
	return c.Close()
}

func parseTimestamp(c cjson.Cursor) (fileMeta, error) {
	m := parseFileMeta(c, snapshotFile, c.Object("meta").Value(snapshotFile))
	if err := c.Err(); err != nil {
		return fileMeta{}, refuse("timestamp metadata", ErrMalformed, err.Error())
	}
	return m, nil
}

func parseSnapshot(c cjson.Cursor) (map[string]fileMeta, error) {
	const what = "snapshot metadata"
	members := c.Value("meta").Members()
	if len(members) > MaxMeta {
		return nil, refuse(what, ErrMalformed, "it lists more than "+strconv.Itoa(MaxMeta)+" files")
	}
	files := make(map[string]fileMeta, len(members))
	for _, m := range members {
		if len(m.Name) > maxName {
			return nil, refuse(what, ErrMalformed, "a file name is too long")
		}
		files[m.Name] = parseFileMeta(c, m.Name, m.Value)
	}
	if err := c.Err(); err != nil {
		return nil, refuse(what, ErrMalformed, err.Error())
	}
	if _, ok := files[targetsFile]; !ok {
		return nil, refuse(what, ErrMalformed, "it does not list "+targetsFile)
	}
	return files, nil
}

// parseTargets reads the targets in order of their paths. Delegations are kept
// as they are for a Search; who does not follow them trusts less, never more.
func parseTargets(what string, c cjson.Cursor, h head) (*targets, error) {
	v := c.Value("targets")
	if v.Kind() != cjson.Map {
		return nil, refuse(what, ErrMalformed, "targets is not an object")
	}
	members := v.Members()
	if len(members) > MaxEntries {
		return nil, refuse(what, ErrMalformed, "more than "+strconv.Itoa(MaxEntries)+" targets")
	}
	read := &targets{head: h, list: make([]Target, len(members))}
	if c.Has("delegations") {
		read.delegations = c.Value("delegations")
	}
	for i, m := range members {
		if !ValidPath(m.Name) {
			return nil, refuse(what, ErrMalformed, "a target's path is not a clean relative path")
		}
		f := c.Nested("targets", m.Value)
		t := Target{Path: m.Name, Length: f.Int("length")}
		if t.Length < 0 || t.Length > MaxLength {
			c.Fail("length", cjson.ErrField)
		}
		t.SHA256, t.SHA512 = parseHashes(c, f.Value("hashes"))
		if f.Has("custom") {
			t.Custom = f.Value("custom")
		}
		read.list[i] = t
	}
	if err := c.Err(); err != nil {
		return nil, refuse(what, ErrMalformed, err.Error())
	}
	return read, nil
}

// ValidPath reports whether path may name a target: relative, clean, of at most
// MaxPath bytes, without control characters or backslashes. Such a path stays
// below the folder it is joined to.
func ValidPath(path string) bool {
	if path == "" || len(path) > MaxPath {
		return false
	}
	for i := 0; i < len(path); i++ {
		if path[i] < 0x20 || path[i] == 0x7f || path[i] == '\\' {
			return false
		}
	}
	for rest, more := path, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// Value returns the target's entry in targets metadata, without its path.
func (t Target) Value() cjson.Value {
	hashes := []cjson.Member{}
	if t.SHA256 != "" {
		hashes = append(hashes, cjson.F("sha256", cjson.String(t.SHA256)))
	}
	if t.SHA512 != "" {
		hashes = append(hashes, cjson.F("sha512", cjson.String(t.SHA512)))
	}
	members := []cjson.Member{
		cjson.F("hashes", cjson.Object(hashes...)),
		cjson.F("length", cjson.Int(t.Length)),
	}
	if t.Custom.Kind() != cjson.Null {
		members = append(members, cjson.F("custom", t.Custom))
	}
	return cjson.Object(members...)
}

// StorageName is where a repository with consistent snapshots keeps the target,
// below its targets folder: the hash stands before the file's name.
func (t Target) StorageName() string {
	hash := t.SHA256
	if hash == "" {
		hash = t.SHA512
	}
	i := strings.LastIndexByte(t.Path, '/') + 1
	return t.Path[:i] + hash + "." + t.Path[i:]
}
