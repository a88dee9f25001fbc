package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	resultsDir = "results"
	// maxResults bounds reports that wait for the platform. An order begins
	// only when its report will have room.
	maxResults = 200
)

// Result is a sealed report that the platform has not acknowledged.
type Result struct {
	name   string
	Report []byte
}

// ResultRoom returns ErrFull when no further report can be kept.
func (s *Store) ResultRoom() error {
	r, err := s.waiting()
	if err == nil && r.count >= maxResults {
		err = ErrFull
	}
	return err
}

// AddResult keeps a sealed report until Acknowledge. It returns when the
// report is durable.
func (s *Store) AddResult(report []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.waiting()
	if err != nil {
		return err
	}
	return s.write(filepath.Join(resultsDir, strconv.FormatInt(r.newest+1, 10)), report)
}

// NextResult returns the oldest report that waits, ErrAbsent when none does.
func (s *Store) NextResult() (Result, error) {
	r, err := s.waiting()
	if err != nil {
		return Result{}, err
	}
	if r.count == 0 {
		return Result{}, ErrAbsent
	}
	name := strconv.FormatInt(r.oldest, 10)
	b, err := s.read(filepath.Join(resultsDir, name))
	return Result{name, b}, err
}

// Acknowledge forgets a report that the platform has stored durably.
func (s *Store) Acknowledge(r Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Join(s.dir, resultsDir)
	if err := os.Remove(filepath.Join(dir, r.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}

// results sums up the reports that wait. They are numbered in their order.
type results struct {
	count          int
	oldest, newest int64
}

func (s *Store) waiting() (r results, err error) {
	names, err := entries(filepath.Join(s.dir, resultsDir))
	if err != nil {
		return r, err
	}
	for _, name := range names {
		n, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return r, damaged(resultsDir, err)
		}
		if r.count == 0 || n < r.oldest {
			r.oldest = n
		}
		r.count, r.newest = r.count+1, max(r.newest, n)
	}
	return r, nil
}
