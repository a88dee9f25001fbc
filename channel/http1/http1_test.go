package http1

import (
	"bufio"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Server
		err  error
	}{
		{"http://platform.example:8080", Server{"platform.example:8080", ""}, nil},
		{"http://platform.example", Server{"platform.example:80", ""}, nil},
		{"http://platform.example/livemend/", Server{"platform.example:80", "/livemend"}, nil},
		{"http://127.0.0.1:1/", Server{"127.0.0.1:1", ""}, nil},
		{"http://[::1]:8080", Server{"[::1]:8080", ""}, nil},
		{"http://[::1]", Server{"[::1]:80", ""}, nil},
		{"https://platform.example", Server{}, ErrTLS},
		{"platform.example", Server{}, ErrURL},
		{"http://", Server{}, ErrURL},
		{"http://a:", Server{}, ErrURL},
		{"http://user@a", Server{}, ErrURL},
		{"http://a/?b", Server{}, ErrURL},
		{"http://a\r\nHost: b", Server{}, ErrURL},
		{"http://" + strings.Repeat("a", maxURL), Server{}, ErrURL},
	} {
		if got, err := Parse(tt.in); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Parse(%.60q) = %v, %v, want %v, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestGet(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/base/small", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) })
	mux.HandleFunc("/base/large", func(w http.ResponseWriter, r *http.Request) {
		for range 100 { // larger than net/http buffers: its length is not announced
			w.Write(make([]byte, 1000))
		}
	})
	mux.Handle("/base/moved", http.RedirectHandler("/base/small", http.StatusFound))
	s := httptest.NewServer(mux)
	defer s.Close()
	at, err := Parse(s.URL + "/base")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Get(t.Context(), at, "/small", 5); err != nil || string(b) != "hello" {
		t.Errorf("small: %q, %v", b, err)
	}
	if b, err := Get(t.Context(), at, "/large", 100_000); err != nil || len(b) != 100_000 {
		t.Errorf("large: %d bytes, %v", len(b), err)
	}
	if _, err := Get(t.Context(), at, "/large", 99_999); !errors.Is(err, ErrSize) {
		t.Errorf("one byte over the limit: %v, want ErrSize", err)
	}
	var status *StatusError
	for path, want := range map[string]int{"/absent": 404, "/moved": 302} {
		if _, err := Get(t.Context(), at, path, 100); !errors.As(err, &status) || status.Status != want {
			t.Errorf("%s: %v, want status %d", path, err, want)
		}
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add("HTTP/1.1 101 Switching Protocols\r\nUpgrade: livemend\r\n\r\n")
	f.Add("HTTP/1.1 101\nUpgrade:x\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := readHead(bufio.NewReader(strings.NewReader(text)))
		if err == nil && (h.status < 100 || h.status > 599) {
			t.Errorf("status %d accepted", h.status)
		}
	})
}
