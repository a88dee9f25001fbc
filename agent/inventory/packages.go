package inventory

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"livemend.dev/livemend/wire"
)

const maxStatusLine = 64 << 10 // bytes; longer lines of the file are skipped

// packages returns the installed packages of a Debian-like system; none on
// others.
func (c *Collector) packages() ([]wire.Package, error) {
	f, err := os.Open(filepath.Join(c.root, "var/lib/dpkg/status"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return parseStatus(f)
}

// parseStatus reads paragraphs of "Name: value" lines.
func parseStatus(r io.Reader) ([]wire.Package, error) {
	var out []wire.Package
	var p wire.Package
	installed := false
	flush := func() {
		if installed && p.Name != "" && len(out) < wire.MaxPackages {
			out = append(out, p)
		}
		p, installed = wire.Package{}, false
	}
	lines := bufio.NewReaderSize(r, maxStatusLine)
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = nil
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" && len(line) > 0 {
			flush()
		}
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Package":
			p.Name = clean(value, wire.MaxID)
		case "Version":
			p.Version = clean(value, wire.MaxID)
		case "Source": // may be followed by a version of its own
			source, _, _ := strings.Cut(value, " ")
			p.Source = clean(source, wire.MaxID)
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
		if err == io.EOF {
			flush()
			return out, nil
		}
	}
}
