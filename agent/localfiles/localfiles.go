// Package localfiles tells other programs on this server what is live-patched:
// scanners, monitoring, people. They need no rights to read it.
//
// Both files are replaced whole, so that a reader never sees half of one. They
// lie below /run and so do not outlive the boot whose truth they tell.
package localfiles

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/wire"
)

// The files, below the folder Dir unless another is given.
const (
	Dir     = "/run/livemend"
	CVEList = "cvelist"    // one identifier per line
	State   = "state.json" // the same with evidence

	public = 0o644
)

// Patch is the truth about one admitted patch.
type Patch struct {
	Path    string
	SHA256  string
	BuildID string
	Level   int64
	Phase   string
	Patched int64 // processes that run the patched code; 1 for the running kernel
	Others  int64 // processes that map the library and do not; 1 for the running kernel
	CVEs    []string
}

// Holds reports whether the patch's fixes are in force on this server: at
// least one process maps the library, and every one that does is patched.
func (p Patch) Holds() bool { return p.Patched > 0 && p.Others == 0 }

// Truth is what the files say.
type Truth struct {
	SystemID string
	BootID   string
	Time     time.Time
	Patches  []Patch

	Quarantined  []wire.Quarantined
	KernelHalted bool // no kernel patch is loaded until a person allows it
}

// Covered returns the vulnerabilities that every affected process is protected
// against, in order, each once. One that two patches claim counts only when
// both hold.
func (t Truth) Covered() []string {
	open := map[string]bool{}
	for _, p := range t.Patches {
		for _, cve := range p.CVEs {
			open[cve] = open[cve] || p.Others > 0
		}
	}
	var covered []string
	for _, p := range t.Patches {
		for _, cve := range p.CVEs {
			if p.Holds() && !open[cve] {
				covered = insert(covered, cve)
			}
		}
	}
	return covered
}

// insert puts s into the sorted list, unless it is there.
func insert(list []string, s string) []string {
	i := len(list)
	for i > 0 && list[i-1] > s {
		i--
	}
	if i > 0 && list[i-1] == s {
		return list
	}
	list = append(list, "")
	copy(list[i+1:], list[i:])
	list[i] = s
	return list
}

// Write replaces both files below dir, which it makes when it is missing. When
// that fails it takes the list away: an old one could claim what is not true any
// more, and none claims nothing.
func Write(dir string, t Truth) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var list []byte
	for _, cve := range t.Covered() {
		list = append(append(list, cve...), '\n')
	}
	// The list goes last: what it says is then explained already.
	path := filepath.Join(dir, CVEList)
	err := state.Replace(filepath.Join(dir, State), append(t.value().JSON(), '\n'), public)
	if err == nil {
		err = state.Replace(path, list, public)
	}
	if err == nil {
		return nil
	}
	if gone := os.Remove(path); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

func (t Truth) value() cjson.Value {
	patches := make([]cjson.Value, len(t.Patches))
	for i, p := range t.Patches {
		patches[i] = cjson.Object(
			cjson.F("path", cjson.String(p.Path)),
			cjson.F("sha256", cjson.String(p.SHA256)),
			cjson.F("build_id", cjson.String(p.BuildID)),
			cjson.F("level", cjson.Int(p.Level)),
			cjson.F("phase", cjson.String(p.Phase)),
			cjson.F("processes_patched", cjson.Int(p.Patched)),
			cjson.F("processes_not_patched", cjson.Int(p.Others)),
			cjson.F("cves", cjson.Strings(p.CVEs)))
	}
	return cjson.Object(
		cjson.F("version", cjson.Int(1)),
		cjson.F("system_id", cjson.String(t.SystemID)),
		cjson.F("boot_id", cjson.String(t.BootID)),
		cjson.F("time", cjson.Int(t.Time.Unix())),
		cjson.F("covered", cjson.Strings(t.Covered())),
		cjson.F("patches", cjson.Array(patches...)),
		cjson.F("quarantined", wire.QuarantinedValue(t.Quarantined)),
		cjson.F("kernel_halted", cjson.Bool(t.KernelHalted)))
}

// IsCovered reports whether the list below dir holds the vulnerability. A list
// that does not exist covers nothing.
func IsCovered(dir, cve string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, CVEList))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if lines.Text() == cve {
			return true, nil
		}
	}
	return false, lines.Err()
}
