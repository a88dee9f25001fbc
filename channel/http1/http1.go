// Package http1 is the little HTTP that the agent needs: one upgrade and one
// small GET. package net/http would cost the agent's package more than the
// agent itself.
//
// It trusts nothing that it reads, and nothing that it reads is trusted: what
// comes through it is checked by a digest or by a handshake. It follows no
// redirects and must not learn to.
package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"livemend.dev/livemend/channel/tcp"
)

// Limits on what a server may answer.
const (
	maxHead  = 16 << 10 // bytes of status line and headers
	maxURL   = 2048
	getLimit = 30 * time.Second // one whole GET
)

// Errors of this package.
var (
	ErrURL    = errors.New("the server's address must look like http://name:port")
	ErrTLS    = errors.New("the server's address must start with http:// : this agent's connection is encrypted by itself, inside HTTP, and needs no https")
	ErrAnswer = errors.New("the server did not answer as HTTP")
	ErrSize   = errors.New("the server's answer is longer than it may be")
)

// StatusError is an answer with another status than the one asked for.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return "the server answered with HTTP status " + strconv.Itoa(e.Status)
}

// Server is the address of a server: where to connect and what it calls itself.
type Server struct {
	Host string // name:port, as it goes into the Host header
	Path string // without a slash at its end; usually empty
}

// Parse reads a base URL such as http://platform.example:8080.
func Parse(url string) (Server, error) {
	if len(url) > maxURL {
		return Server{}, ErrURL
	}
	if strings.HasPrefix(url, "https://") {
		return Server{}, ErrTLS
	}
	rest, ok := strings.CutPrefix(url, "http://")
	if !ok {
		return Server{}, ErrURL
	}
	for i := 0; i < len(rest); i++ {
		if c := rest[i]; c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '@' {
			return Server{}, ErrURL
		}
	}
	host, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], strings.TrimRight(rest[i:], "/")
	}
	if strings.IndexByte(host, ':') < 0 || strings.HasSuffix(host, "]") {
		host += ":80"
	}
	if _, _, err := tcp.Split(host); err != nil {
		return Server{}, ErrURL
	}
	return Server{Host: host, Path: path}, nil
}

// Upgrade connects to s and asks for protocol at path. On success the
// connection, and the reader through which it must be read, belong to the
// caller.
func Upgrade(ctx context.Context, s Server, path, protocol string) (*os.File, *bufio.Reader, error) {
	conn, r, h, err := ask(ctx, s, "GET "+s.Path+path+" HTTP/1.1\r\nHost: "+s.Host+
		"\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	if err != nil {
		return nil, nil, err
	}
	if h.status != 101 || !strings.EqualFold(h.upgrade, protocol) {
		return nil, nil, errors.Join(&StatusError{h.status}, conn.Close())
	}
	return conn, r, nil
}

// Get returns the body at path, at most limit bytes. It asks as HTTP/1.0, so
// that the body ends where the connection ends and needs no decoding; whoever
// calls knows the digest of what comes.
func Get(ctx context.Context, s Server, path string, limit int64) (body []byte, err error) {
	ctx, stop := context.WithTimeout(ctx, getLimit)
	defer stop()
	conn, r, h, err := ask(ctx, s, "GET "+s.Path+path+" HTTP/1.0\r\nHost: "+s.Host+"\r\n\r\n")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stopReading := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // as in ask
	defer stopReading()
	if h.status != 200 {
		return nil, &StatusError{h.status}
	}
	body, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, ErrSize
	}
	return body, nil
}

// ask connects, sends the request and reads the head of the answer.
func ask(ctx context.Context, s Server, request string) (*os.File, *bufio.Reader, head, error) {
	conn, err := tcp.Dial(ctx, s.Host)
	if err != nil {
		return nil, nil, head{}, err
	}
	// A read or write ends with ctx, whichever way ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // a closed connection needs none
	defer stop()
	var h head
	r := bufio.NewReader(conn)
	if _, err = io.WriteString(conn, request); err == nil {
		h, err = readHead(r)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, head{}, errors.Join(err, conn.Close())
	}
	return conn, r, h, nil
}

// head is what matters of an answer's status line and headers.
type head struct {
	status  int
	upgrade string
}

func readHead(r *bufio.Reader) (head, error) {
	var h head
	left := maxHead
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if left -= len(line); left < 0 || err == bufio.ErrBufferFull {
			return h, ErrSize
		}
		if err != nil {
			return h, errors.Join(ErrAnswer, err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if first {
			if h.status, err = parseStatus(text); err != nil {
				return h, err
			}
			continue
		}
		if text == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			return h, ErrAnswer
		}
		if strings.EqualFold(name, "Upgrade") {
			h.upgrade = strings.TrimSpace(value)
		}
	}
}

func parseStatus(line string) (int, error) {
	rest, ok := strings.CutPrefix(line, "HTTP/1.")
	if !ok || len(rest) < 5 || rest[1] != ' ' {
		return 0, ErrAnswer
	}
	n, err := strconv.Atoi(rest[2:5])
	if err != nil || n < 100 || n > 599 || len(rest) > 5 && rest[5] != ' ' {
		return 0, ErrAnswer
	}
	return n, nil
}
