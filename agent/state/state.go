// Package state is what the agent knows across restarts: who it is, whom it
// believes, which order was the last, which patches were admitted, and which
// reports the platform has not acknowledged yet.
//
// Every change is durable before the call that makes it returns: written to a
// new file, synced, renamed, and the folder synced. It holds no rules about
// trust or patches; package orders does. It must not import fmt.
//
// Files, all below one folder of mode 0700:
//
//	keys.json            secret keys of this system
//	enrolment.json       System ID and server
//	bundle.json          what was pinned at enrolment
//	director-root.json   the director root in force
//	counter.json         counter of the last order
//	intent               the kernel patch that has not proved itself yet
//	patches.json         admitted patches and level floors
//	objects/SHA256       artifacts and the signed files that name them
//	results/NUMBER       sealed reports on their way
//	repository/          the portal's metadata (package trust/client)
package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/internal/cjson"
)

// Errors of this package.
var (
	ErrInUse   = errors.New("another agent is using this state folder and only one may run at a time; nothing was changed: stop it first, with systemctl stop livemend-agent")
	ErrDamaged = errors.New("a file of the agent's state is damaged; live patches in running processes stay in force: put the state folder back from a backup, or move it away and enrol again")
	ErrAbsent  = errors.New("the agent's state does not hold this")
	ErrFull    = errors.New("too many reports wait for the platform: no order is carried out until they are delivered")
)

const (
	maxFile = 16 << 20 // bytes of any file of the state but objects
	private = 0o600
)

// Store is the state folder. Its methods may be used concurrently.
type Store struct {
	dir  string
	lock *os.File

	mu      sync.Mutex
	patches patches
	counter int64

	intent       intent.Record
	intentNumber int64 // of its last write
}

// Open opens the state below dir, which it makes when it is missing, and keeps
// other agents out until Close.
func Open(dir string) (*Store, error) {
	folders := []string{dir, filepath.Join(dir, objectsDir), filepath.Join(dir, resultsDir)}
	for _, d := range folders {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, private)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(err, lock.Close())
	}
	err = errors.Join(s.loadCounter(), s.loadPatches(), s.loadIntent())
	for _, d := range folders {
		err = errors.Join(err, removeIncomplete(d))
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// removeIncomplete drops what a crash kept from becoming a file of the state.
func removeIncomplete(dir string) error {
	names, err := list(dir)
	for _, name := range names {
		if strings.HasPrefix(name, temporary) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

// Close lets other agents use the folder.
func (s *Store) Close() error { return s.lock.Close() }

// RepositoryDir is the folder for the portal's metadata.
func (s *Store) RepositoryDir() string { return filepath.Join(s.dir, "repository") }

// LastCounter returns the counter of the last order that was begun.
func (s *Store) LastCounter() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counter
}

// UseCounter records, before an order is carried out, that its counter is used.
func (s *Store) UseCounter(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writeJSON("counter.json", cjson.Object(cjson.F("counter", cjson.Int(n)))); err != nil {
		return err
	}
	s.counter = n
	return nil
}

func (s *Store) loadCounter() error {
	v, err := s.readJSON("counter.json")
	if errors.Is(err, ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	c := cjson.Fields(v)
	s.counter = c.Int("counter")
	return damaged("counter.json", c.Err())
}

// readJSON returns the document in a file, ErrAbsent when there is none.
func (s *Store) readJSON(name string) (cjson.Value, error) {
	b, err := s.read(name)
	if err != nil {
		return cjson.Value{}, err
	}
	v, err := cjson.Parse(b)
	return v, damaged(name, err)
}

func (s *Store) read(name string) ([]byte, error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, damaged(name, errors.New("not a file of a sensible size"))
	}
	return os.ReadFile(path)
}

func (s *Store) writeJSON(name string, v cjson.Value) error { return s.write(name, v.JSON()) }

// write replaces a file durably.
func (s *Store) write(name string, b []byte) error {
	return Replace(filepath.Join(s.dir, name), b, private)
}

// Replace gives the file at path new content: readers see the old or the new,
// and after a crash one of both is there. It returns when the new content is
// durable.
func Replace(path string, b []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporary+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// temporary starts the name of a file that is not complete yet.
const temporary = ".new-"

// entries returns the names of the complete files in dir, in no order.
func entries(dir string) ([]string, error) {
	names, err := list(dir)
	complete := names[:0]
	for _, name := range names {
		if !strings.HasPrefix(name, temporary) {
			complete = append(complete, name)
		}
	}
	return complete, err
}

func list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func damaged(name string, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(ErrDamaged, errors.New(name+": "+err.Error()))
}
