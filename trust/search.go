package trust

import (
	"crypto/sha256"
	"strconv"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
)

// Search looks for one target in the targets role and the roles it delegates
// to: depth first, in the order of the delegations, each role once (TUF
// specification 5.6.7). While Next returns a role, hand its metadata to Update;
// then ask Result. Not for concurrent use.
//
// What was verified for one search says nothing in another: the same role may
// be trusted there by somebody else, with other keys.
type Search struct {
	t       *Trusted
	path    string
	sum     [sha256.Size]byte
	pending []visit // the next one last
	seen    map[string]bool
	found   *Target
	limit   string // why the search ended early
}

// visit is a delegated role that has to be read, and who says so.
type visit struct {
	delegation
	keys  map[string]PublicKey // of the delegator
	depth int
}

// Wanted is the metadata of a delegated role that a Search needs.
type Wanted struct {
	Role   string
	Name   string // of the file in the repository, as one segment of an address
	Stored string // of the file in a cache
	Limit  int64  // the most bytes that it may have
}

// Search starts looking for path. It wants UpdateTargets or RecallTargets to
// have succeeded, and a snapshot as soon as a delegated role has to be read.
func (t *Trusted) Search(path string) (*Search, error) {
	if t.targets == nil {
		return nil, refuse("target "+strconv.Quote(path), ErrOrder, "")
	}
	s := &Search{t: t, path: path, sum: sha256.Sum256([]byte(path)), seen: make(map[string]bool)}
	return s, s.enter("targets metadata", t.targets, 0, nil)
}

// CheckDelegations returns ErrMalformed when the delegations of the targets
// role can not be read.
func (t *Trusted) CheckDelegations() error {
	if t.targets == nil {
		return refuse("targets metadata", ErrOrder, "")
	}
	_, err := parseDelegations("targets metadata", t.targets.delegations)
	return err
}

// enter looks for the target in a role's metadata and puts the roles it
// delegates the path to in front of those that still wait.
func (s *Search) enter(what string, in *targets, depth int, wait []visit) error {
	if target, ok := in.find(s.path); ok {
		s.found, s.pending = &target, nil
		return nil
	}
	d, err := parseDelegations(what, in.delegations)
	if err != nil {
		return err
	}
	var next []delegation
	if d.bins != nil {
		next = append(next, d.bins.bin(s.sum))
	}
	sum := hextext.Encode(s.sum[:])
	for _, role := range d.roles {
		if !role.trusts(s.path, sum) {
			continue
		}
		next = append(next, role)
		if role.terminating {
			break
		}
	}
	if len(next) > 0 && next[len(next)-1].terminating {
		wait = nil
	}
	for i := len(next) - 1; i >= 0; i-- {
		wait = append(wait, visit{next[i], d.keys, depth + 1})
	}
	s.pending = wait
	return nil
}

// Next returns the role whose metadata the search needs now; ok is false when
// it is over. Until Update accepts that metadata, Next returns the same role.
func (s *Search) Next() (want Wanted, ok bool, err error) {
	for len(s.pending) > 0 {
		v := s.pending[len(s.pending)-1]
		switch {
		case s.seen[v.name]:
			s.pending = s.pending[:len(s.pending)-1]
			continue
		case len(s.seen) == MaxVisited:
			s.pending, s.limit = nil, strconv.Itoa(MaxVisited)+" delegated roles were read, no more are"
			continue
		case v.depth > MaxDelegation:
			s.pending, s.limit = nil, "delegations are more than "+strconv.Itoa(MaxDelegation)+" deep"
			continue
		}
		m, err := s.announced(v)
		if err != nil {
			return Wanted{}, false, err
		}
		return Wanted{
			Role:   v.name,
			Name:   s.t.fileName(m.version, QuoteName(v.name)+".json"),
			Stored: StoredName(v.name) + ".json",
			Limit:  m.limit(MaxTargets),
		}, true, nil
	}
	return Wanted{}, false, nil
}

func (v visit) what() string { return "metadata of the delegated role " + strconv.Quote(v.name) }

func (s *Search) announced(v visit) (fileMeta, error) {
	if s.t.snapshot == nil {
		return fileMeta{}, refuse(v.what(), ErrOrder, "")
	}
	m, ok := s.t.snapshot.files[v.name+".json"]
	if !ok {
		return fileMeta{}, refuse(v.what(), ErrMalformed, "the snapshot does not list it")
	}
	return m, nil
}

// Update accepts the metadata of the role that Next returned: it is what the
// snapshot announces, signed by enough of the keys that this search's delegator
// names, and not past its time. A refused file changes nothing. When no other
// file can be had, the search has failed: to go on with the next role would let
// whoever serves the files choose who is asked.
func (s *Search) Update(b []byte, now time.Time) error {
	if _, ok, err := s.Next(); err != nil {
		return err
	} else if !ok {
		return refuse("target "+strconv.Quote(s.path), ErrOrder, "")
	}
	v := s.pending[len(s.pending)-1]
	what := v.what()
	m, err := s.announced(v)
	if err != nil {
		return err
	}
	if err := m.check(what, b); err != nil {
		return err
	}
	role, err := s.read(v, b)
	if err != nil {
		return err
	}
	if role.version != m.version {
		return refuse(what, ErrVersion, announcedVersion(role.version, m.version))
	}
	if !now.Before(role.expires) {
		return refuse(what, ErrExpired, "since "+FormatTime(role.expires))
	}
	if err := s.enter(what, role, v.depth, s.pending[:len(s.pending)-1]); err != nil {
		return err
	}
	s.seen[v.name] = true
	return nil
}

func (s *Search) read(v visit, b []byte) (*targets, error) {
	what := v.what()
	e, err := parseEnvelope(what, b, MaxTargets)
	if err != nil {
		return nil, err
	}
	c := cjson.Fields(e.Signed)
	h, err := readHead(what, c, roleTargets)
	if err != nil {
		return nil, err
	}
	if err := e.verify(v.keys, v.role, s.t.schemes); err != nil {
		return nil, err
	}
	return parseTargets(what, c, h)
}

// Result returns the target that was found, or ErrNoTarget; ErrOrder while the
// search is not over.
func (s *Search) Result() (Target, error) {
	what := "target " + strconv.Quote(s.path)
	switch {
	case s.found != nil:
		return *s.found, nil
	case len(s.pending) > 0:
		return Target{}, refuse(what, ErrOrder, "")
	}
	return Target{}, refuse(what, ErrNoTarget, s.limit)
}
