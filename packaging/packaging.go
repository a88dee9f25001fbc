// Package packaging makes the one command that installs and enrols an agent:
// the script that a platform serves beside the agent's packages. The folder
// also holds what the agent's Debian package is made from (agent, build-deb.sh).
//
// It must not serve anything itself and must not know about enrolment beyond
// the names of the agent's variables.
package packaging

import (
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	debian "github.com/knqyf263/go-deb-version"
)

// MaxPackage bounds the agent's package in bytes: "mere hundreds of kilobytes".
const MaxPackage = 1_000_000

// Errors of this package; returned errors wrap one of them.
var (
	ErrParams    = errors.New("the install script cannot be made")
	ErrNoPackage = errors.New("there is no agent package")
)

// Params are what an install script is made for.
type Params struct {
	URL     string            // of the platform, without a slash at the end
	Version string            // of the packages
	SHA256  map[string]string // of each package, lower-case hexadecimal, by Debian's name of the architecture
}

//go:embed install.sh
var script string

// What may stand in a script. All of it is free of characters that mean
// anything to a shell, so nothing needs quoting.
var (
	urlForm     = regexp.MustCompile(`^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$`)
	versionForm = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~-]*$`)
	archForm    = regexp.MustCompile(`^[a-z0-9-]+$`)
	sumForm     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fileForm    = regexp.MustCompile(`^livemend-agent_([0-9][A-Za-z0-9.+~-]*)_([a-z0-9-]+)\.deb$`)
)

// InstallScript returns the POSIX shell script for p. The same p gives the same
// bytes, so its hash can be shown. The error wraps ErrParams and names what
// does not fit.
func InstallScript(p Params) ([]byte, error) {
	switch {
	case !urlForm.MatchString(p.URL):
		return nil, fmt.Errorf("%w: %q is no address of a platform", ErrParams, p.URL)
	case !versionForm.MatchString(p.Version):
		return nil, fmt.Errorf("%w: %q is no version", ErrParams, p.Version)
	case len(p.SHA256) == 0:
		return nil, fmt.Errorf("%w: no package is given", ErrParams)
	}
	var cases []string
	for _, arch := range slices.Sorted(maps.Keys(p.SHA256)) {
		if sum := p.SHA256[arch]; !archForm.MatchString(arch) || !sumForm.MatchString(sum) {
			return nil, fmt.Errorf("%w: %q with hash %q is no package", ErrParams, arch, sum)
		}
		cases = append(cases, arch+") sum="+p.SHA256[arch]+" ;;")
	}
	return []byte(strings.NewReplacer("@URL@", p.URL, "@VERSION@", p.Version, "@CASES@", strings.Join(cases, "\n\t")).Replace(script)), nil
}

// Find returns the newest version of the agent's packages in dir with their
// hashes by architecture; file names are those of FileName. The error wraps
// ErrNoPackage when there is none.
func Find(dir string) (version string, sums map[string]string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrNoPackage, err)
	}
	for _, e := range entries {
		m := fileForm.FindStringSubmatch(e.Name())
		if m == nil || !e.Type().IsRegular() {
			continue
		}
		newer, err := newer(m[1], version)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		if newer {
			version, sums = m[1], map[string]string{}
		}
		if m[1] != version {
			continue
		}
		if sums[m[2]], err = fileSum(filepath.Join(dir, e.Name())); err != nil {
			return "", nil, err
		}
	}
	if version == "" {
		return "", nil, fmt.Errorf("%w in %s: make one with make packages", ErrNoPackage, dir)
	}
	return version, sums, nil
}

// FileName is the name of the agent's package.
func FileName(version, arch string) string {
	return "livemend-agent_" + version + "_" + arch + ".deb"
}

func newer(a, than string) (bool, error) {
	va, err := debian.NewVersion(a)
	if err != nil || than == "" {
		return err == nil, err
	}
	vb, err := debian.NewVersion(than)
	return err == nil && va.GreaterThan(vb), err
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
