package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"livemend.dev/livemend/portal/client"
)

// Portal is the vendor's service, and what the demonstration has in the hands
// of vendor and partner.
type Portal struct {
	URL     string
	Partner *client.Client // as the partner's platform sees the portal

	partnerFile string // credential of the partner
	vendorFile  string // credential that may publish
	data        string
}

// Platform is the partner's console.
type Platform struct {
	URL     string
	OneTime string // one-time password of the administrator
	data    string
}

// StartPortal runs the vendor's key ceremony and starts the portal.
func (s *Stage) StartPortal(ctx context.Context) (*Portal, error) {
	p := &Portal{data: s.path("portal")}
	keys := s.path("vendor-keys")
	if _, err := s.Livemend(ctx, "repo", "init", keys); err != nil {
		return nil, err
	}
	var err error
	if p.partnerFile, err = s.credential(ctx, p, "partner"); err != nil {
		return nil, err
	}
	if p.vendorFile, err = s.credential(ctx, p, "vendor", "--vendor"); err != nil {
		return nil, err
	}
	_, p.URL, err = s.serve(ctx, "portal", "portal", "serve", "--data", p.data, "--listen", "127.0.0.1:0",
		"--root", filepath.Join(keys, "root.json"), "--online-keys", keys)
	if err != nil {
		return nil, err
	}
	credential, err := os.ReadFile(p.partnerFile)
	if err != nil {
		return nil, err
	}
	p.Partner = client.New(p.URL, strings.TrimSpace(string(credential)), nil)
	return p, nil
}

// credential makes an account at the portal and keeps its credential in a file.
func (s *Stage) credential(ctx context.Context, p *Portal, name string, more ...string) (string, error) {
	out, err := s.Livemend(ctx, append([]string{"portal", "partner", "add", name, "--data", p.data}, more...)...)
	if err != nil {
		return "", err
	}
	fields := strings.Fields(out)
	if len(fields) == 0 {
		return "", fmt.Errorf("the portal gave no credential for %s", name)
	}
	file := s.path(name + ".credential")
	return file, os.WriteFile(file, []byte(fields[len(fields)-1]+"\n"), 0o600)
}

// StartPlatform runs the director's key ceremony and starts the platform. Servers
// that do not share this machine's network see the machine at the address
// seenAt; it is empty when they do.
func (s *Stage) StartPlatform(ctx context.Context, p *Portal, seenAt string) (*Platform, error) {
	m := &Platform{data: s.path("platform")}
	director := s.path("director")
	if _, err := s.Livemend(ctx, "director", "init", director); err != nil {
		return nil, err
	}
	args := []string{"platform", "serve", "--data", m.data, "--portal", p.URL, "--credential-file", p.partnerFile,
		"--director", director, "--packages", s.options.Packages}
	if seenAt == "" {
		args = append(args, "--listen", "127.0.0.1:0")
	} else {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		args = append(args, "--listen", "127.0.0.1:"+port, "--public-url", "http://"+net.JoinHostPort(seenAt, port))
	}
	program, url, err := s.serve(ctx, "platform", args...)
	if err != nil {
		return nil, err
	}
	m.URL = url
	m.OneTime, err = program.Line(ctx, "platform: administrator admin, one-time password ")
	return m, err
}

// freePort returns a port that nobody has at the moment.
func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// Publish signs files and puts them into the portal's repository, as the vendor.
func (s *Stage) Publish(ctx context.Context, p *Portal, what string, files ...string) (string, error) {
	args := []string{what, "publish", "--portal", p.URL, "--credential-file", p.vendorFile, "--keys", s.path("vendor-keys")}
	return s.Livemend(ctx, append(args, files...)...)
}

// Holding returns which files of portal and platform hold text: their whole
// data, as a thief would get it.
func (s *Stage) Holding(text string) (searched int, holding []string, err error) {
	for _, folder := range []string{s.path("portal"), s.path("platform")} {
		err = errors.Join(err, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				return nil // replaced meanwhile
			}
			searched++
			if bytes.Contains(bytes.ToLower(content), bytes.ToLower([]byte(text))) {
				holding = append(holding, filepath.Base(path))
			}
			return err
		}))
	}
	return searched, holding, err
}

// RepositoryFile fetches a file of the portal's repository as anybody can.
func (p *Portal) RepositoryFile(ctx context.Context, name string) (content []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/repo/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Timeout: askWithin}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s of the repository: %s", name, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// SignedFiles returns the portal's present timestamp, snapshot and targets
// metadata by name, following one to the other.
func (p *Portal) SignedFiles(ctx context.Context) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name := "timestamp.json"; ; {
		content, err := p.RepositoryFile(ctx, name)
		if err != nil {
			return nil, err
		}
		files[name] = content
		var doc struct {
			Signed struct {
				Meta map[string]struct{ Version int }
			}
		}
		if err := json.Unmarshal(content, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(doc.Signed.Meta) == 0 {
			return files, nil
		}
		for next, meta := range doc.Signed.Meta {
			name = fmt.Sprintf("%d.%s", meta.Version, next)
		}
	}
}
