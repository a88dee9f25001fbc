package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	names, err := s.resultNames()
	if err == nil && len(names) >= maxResults {
		err = ErrFull
	}
	return err
}

// AddResult keeps a sealed report until Acknowledge. It returns when the
// report is durable.
func (s *Store) AddResult(report []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.resultNames()
	if err != nil {
		return err
	}
	next := int64(1)
	if len(names) > 0 {
		last, err := strconv.ParseInt(names[len(names)-1], 10, 64)
		if err != nil {
			return damaged(resultsDir, err)
		}
		next = last + 1
	}
	return s.write(filepath.Join(resultsDir, resultName(next)), report)
}

// NextResult returns the oldest report that waits, ErrAbsent when none does.
func (s *Store) NextResult() (Result, error) {
	names, err := s.resultNames()
	if err != nil {
		return Result{}, err
	}
	if len(names) == 0 {
		return Result{}, ErrAbsent
	}
	b, err := s.read(filepath.Join(resultsDir, names[0]))
	return Result{names[0], b}, err
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

// resultNames returns the waiting reports, oldest first.
func (s *Store) resultNames() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, resultsDir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), temporary) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// resultName makes names that sort as their numbers do.
func resultName(n int64) string {
	digits := strconv.FormatInt(n, 10)
	return strings.Repeat("0", max(0, 12-len(digits))) + digits
}
