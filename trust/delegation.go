package trust

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// Limits on delegations.
const (
	MaxVisited     = 32   // delegated roles read in one search
	MaxDelegation  = 16   // how far a delegated role may be from the targets role
	MaxDelegations = 1024 // roles that one role delegates to by name
	MaxPatterns    = 4096 // path patterns and hash prefixes of one role's delegations together
	MaxRoleName    = 80   // bytes; percent-encoded it still is a file's name
	MaxBinBits     = 32   // of the hash that chooses a bin
)

// delegations is what a targets role says of the roles it trusts.
type delegations struct {
	keys  map[string]PublicKey
	roles []delegation
	bins  *bins // instead of roles
}

// delegation is one role that is trusted with some paths.
type delegation struct {
	name        string
	role        Role
	terminating bool
	paths       []string // patterns; nil when prefixes says it
	prefixes    []string // of the SHA-256 of the path, in hex
}

// bins are roles that share keys and divide all paths by hash (TAP 15).
type bins struct {
	role   Role
	bits   int
	prefix string
}

// parseDelegations reads the delegations of a targets document whose signatures
// were verified. The null value stands for none.
func parseDelegations(what string, v cjson.Value) (delegations, error) {
	var d delegations
	if v.Kind() == cjson.Null {
		return d, nil
	}
	c := cjson.Fields(v)
	d.keys = parseKeys(c)
	named, succinct := c.Has("roles"), c.Has("succinct_roles")
	switch {
	case named == succinct:
		return d, refuse(what, ErrMalformed, "delegations have either roles or succinct_roles")
	case succinct:
		d.bins = parseBins(c)
	default:
		d.roles = parseDelegatedRoles(c)
	}
	if err := c.Err(); err != nil {
		return d, refuse(what, ErrMalformed, err.Error())
	}
	return d, nil
}

func parseDelegatedRoles(c cjson.Cursor) []delegation {
	items := c.Items("roles", MaxDelegations)
	roles := make([]delegation, 0, len(items))
	seen := make(map[string]bool, len(items))
	patterns := 0
	for _, item := range items {
		f := c.Nested("roles", item)
		d := delegation{
			name:        f.Text("name", MaxRoleName),
			role:        readRole(f, "roles"),
			terminating: f.Has("terminating") && f.Bool("terminating"),
		}
		if !validRoleName(d.name) {
			c.Fail("name", cjson.ErrField)
		}
		if seen[d.name] {
			c.Fail("roles", cjson.ErrDuplicate)
		}
		seen[d.name] = true
		byPath, byHash := f.Has("paths"), f.Has("path_hash_prefixes")
		switch {
		case byPath == byHash:
			c.Fail("paths", cjson.ErrField)
		case byPath:
			d.paths = f.Texts("paths", MaxPatterns, MaxPath)
		default:
			d.prefixes = f.Texts("path_hash_prefixes", MaxPatterns, 2*sha256.Size)
		}
		for _, p := range d.paths {
			if !validPattern(p) {
				c.Fail("paths", cjson.ErrField)
			}
		}
		for _, p := range d.prefixes {
			if !validHashPrefix(p) {
				c.Fail("path_hash_prefixes", cjson.ErrField)
			}
		}
		if patterns += len(d.paths) + len(d.prefixes); patterns > MaxPatterns {
			c.Fail("paths", cjson.ErrSize)
		}
		if c.Err() != nil {
			return nil
		}
		roles = append(roles, d)
	}
	return roles
}

// validRoleName refuses the names of the roles that root delegates to: a file
// of theirs could otherwise be taken for the delegated role's.
func validRoleName(name string) bool {
	switch name {
	case "", roleRoot, roleTimestamp, roleSnapshot, roleTargets:
		return false
	}
	return !strings.Contains(name, "\x00")
}

func validHashPrefix(p string) bool {
	return p != "" && hextext.Is(p+strings.Repeat("0", len(p)%2), (len(p)+1)/2)
}

func parseBins(c cjson.Cursor) *bins {
	f := c.Object("succinct_roles")
	b := &bins{role: readRole(f, "succinct_roles"), prefix: f.Text("name_prefix", MaxRoleName-1-MaxBinBits/4)}
	bits := f.Int("bit_length")
	if bits < 1 || bits > MaxBinBits {
		c.Fail("bit_length", cjson.ErrField)
		return b
	}
	if b.prefix == "" || strings.Contains(b.prefix, "\x00") {
		c.Fail("name_prefix", cjson.ErrField)
	}
	b.bits = int(bits)
	return b
}

// bin returns the one role that is trusted with a path of this hash. Nobody
// else is, so its delegation terminates.
func (b *bins) bin(sum [sha256.Size]byte) delegation {
	n := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	n >>= 32 - b.bits
	digits := strconv.FormatUint(uint64(n), 16)
	width := (b.bits + 3) / 4
	return delegation{
		name:        b.prefix + "-" + strings.Repeat("0", width-len(digits)) + digits,
		role:        b.role,
		terminating: true,
	}
}

// trusts reports whether the delegation covers path, whose SHA-256 is sum in hex.
func (d delegation) trusts(path, sum string) bool {
	for _, p := range d.paths {
		if matchPattern(p, path) {
			return true
		}
	}
	for _, p := range d.prefixes {
		if strings.HasPrefix(sum, p) {
			return true
		}
	}
	return false
}

// QuoteName returns the name of a role or target as one segment of an address:
// everything but letters, digits, and _ . - ~ is percent-encoded, the slash too.
func QuoteName(name string) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// StoredName is QuoteName for the name of a file: a leading dot is encoded too,
// so that no file is hidden or names a folder. Two names never share one.
func StoredName(name string) string {
	quoted := QuoteName(name)
	if strings.HasPrefix(quoted, ".") {
		return "%2E" + quoted[1:]
	}
	return quoted
}
