package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	rpmutils "github.com/sassoftware/go-rpmutils"
	"github.com/ulikunitz/xz"

	"livemend.dev/livemend/patch/module"
)

// Limits on one package.
const (
	maxPackage   = 512 << 20
	maxMembers   = 10_000
	maxChangelog = 4 << 20 // bytes of all its entries
)

// livepatchPackage is what is taken from a distribution's package.
type livepatchPackage struct {
	name      string // with version and release
	changelog []string
	modules   map[string][]byte // by path
}

// readRPM reads the modules and the changelog of an RPM package. Signatures of the
// package are its distribution's matter and are not looked at.
func readRPM(data []byte) (p *livepatchPackage, err error) {
	r, err := rpmutils.ReadRpm(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading the package: %w", err)
	}
	nevra, err := r.Header.GetNEVRA()
	if err != nil {
		return nil, fmt.Errorf("reading the package: %w", err)
	}
	p = &livepatchPackage{name: nevra.String(), modules: map[string][]byte{}}
	if r.Header.HasTag(rpmutils.CHANGELOGTEXT) {
		if p.changelog, err = r.Header.GetStrings(rpmutils.CHANGELOGTEXT); err != nil {
			return nil, fmt.Errorf("reading the package's changelog: %w", err)
		}
	}
	total := 0
	for _, text := range p.changelog {
		if total += len(text); total > maxChangelog {
			return nil, errors.New("the package's changelog is too long")
		}
	}
	files, err := r.PayloadReaderExtended()
	if err != nil {
		return nil, fmt.Errorf("reading the package's files: %w", err)
	}
	for n := 0; ; n++ {
		info, err := files.Next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the package's files: %w", err)
		}
		if n == maxMembers {
			return nil, fmt.Errorf("the package has more than %d files", maxMembers)
		}
		name := path.Base(info.Name())
		if files.IsLink() || !strings.HasSuffix(name, ".ko") && !strings.HasSuffix(name, ".ko.xz") {
			continue
		}
		content, err := readModule(files, strings.HasSuffix(name, ".xz"))
		if err != nil {
			return nil, fmt.Errorf("reading %s of the package: %w", info.Name(), err)
		}
		p.modules[info.Name()] = content
	}
}

// readModule reads a module that may be compressed.
func readModule(r io.Reader, compressed bool) ([]byte, error) {
	if compressed {
		unpacked, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = unpacked
	}
	data, err := io.ReadAll(io.LimitReader(r, module.MaxSize+1))
	if err == nil && len(data) > module.MaxSize {
		err = fmt.Errorf("it is larger than %d bytes", module.MaxSize)
	}
	return data, err
}

// choose returns the package's live patch for a release; without one there must
// be one only.
func (p *livepatchPackage) choose(release string) ([]byte, error) {
	var found []byte
	var names []string
	for name, data := range p.modules {
		m, err := module.Read(data)
		if err != nil {
			return nil, fmt.Errorf("%s of package %s: %w", name, p.name, err)
		}
		if !m.Livepatch || release != "" && m.Release != release {
			continue
		}
		found = data
		names = append(names, path.Base(name)+" for "+m.Release)
	}
	switch len(names) {
	case 0:
		return nil, fmt.Errorf("package %s holds no live patch for the kernel", p.name)
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("package %s holds several live patches; say with --release which one: %s", p.name, strings.Join(names, ", "))
}
