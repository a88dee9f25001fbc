package main

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// server serves a repository and remembers what was asked for.
type server struct {
	url string

	mu     sync.Mutex
	asked  []string // names of metadata files, escaped as they were sent
	files  []string // names of target files
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func serve(t *testing.T, r *repository) *server {
	t.Helper()
	s := &server{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		path := req.URL.EscapedPath()
		var content []byte
		if name, ok := strings.CutPrefix(path, "/metadata/"); ok {
			s.asked = append(s.asked, name)
			content = r.metadata(name)
		} else if name, ok := strings.CutPrefix(path, "/targets/"); ok {
			s.files = append(s.files, name)
			content = r.target(name)
		}
		switch {
		case s.answer != nil && s.answer(w, req):
		case content == nil:
			http.NotFound(w, req)
		default:
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = w.Write(content) // the client may hang up
		}
	}))
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

// settle waits for the last answer to be over. Tests change a repository
// between two runs of the program; the handlers must see that as an order.
func (s *server) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// metadata returns the file of that name, nil when there is none.
func (r *repository) metadata(name string) []byte {
	role, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return nil
	}
	version := 0
	if n, rest, _ := strings.Cut(role, "."); role != "timestamp" && (r.consistent || rest == "root") {
		var err error
		if version, err = strconv.Atoi(n); err != nil || version < 1 {
			return nil
		}
		role = rest
	}
	role, err := url.PathUnescape(role)
	list := r.published[role]
	switch {
	case err != nil || len(list) == 0 || version > len(list):
		return nil
	case version > 0:
		return list[version-1]
	}
	return list[len(list)-1]
}

// target returns the file of that name, with a hash before it when snapshots
// are consistent.
func (r *repository) target(name string) []byte {
	name, err := url.PathUnescape(name)
	if err != nil {
		return nil
	}
	if !r.consistent {
		return r.artifacts[name]
	}
	i := strings.LastIndexByte(name, '/') + 1
	hash, base, _ := strings.Cut(name[i:], ".")
	path := name[:i] + base
	for role := range r.docs {
		entry, ok := r.docs[role].fields["targets"].Get(path)
		if !ok {
			continue
		}
		hashes, _ := entry.Get("hashes")
		for _, m := range hashes.Members() {
			if sum, _ := m.Value.Text(); sum == hash {
				return r.artifacts[path]
			}
		}
	}
	return nil
}

// requests returns the metadata that was asked for since the last call.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// downloads is requests for targets.
func (s *server) downloads() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.files
	s.files = nil
	return files
}

func (s *server) lastRequest(t *testing.T) string {
	t.Helper()
	asked := s.requests()
	if len(asked) == 0 {
		t.Fatal("nothing was asked for")
	}
	return asked[len(asked)-1]
}

func sumOf(hash string, content []byte) string {
	if hash == "sha512" {
		sum := sha512.Sum512(content)
		return hex.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
