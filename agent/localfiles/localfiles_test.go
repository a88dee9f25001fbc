package localfiles_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"livemend.dev/livemend/agent/localfiles"
)

func TestCovered(t *testing.T) {
	holds := localfiles.Patch{Patched: 2, CVEs: []string{"CVE-3", "CVE-1"}}
	partial := localfiles.Patch{Patched: 2, Others: 1, CVEs: []string{"CVE-2"}}
	unused := localfiles.Patch{CVEs: []string{"CVE-4"}}
	same := localfiles.Patch{Patched: 1, CVEs: []string{"CVE-1", "CVE-5"}}
	contradicts := localfiles.Patch{Others: 1, CVEs: []string{"CVE-1"}}
	for name, tt := range map[string]struct {
		patches []localfiles.Patch
		want    []string
	}{
		"nothing":                          {nil, nil},
		"every process":                    {[]localfiles.Patch{holds}, []string{"CVE-1", "CVE-3"}},
		"one process lacks it":             {[]localfiles.Patch{partial}, nil},
		"no process uses the library":      {[]localfiles.Patch{unused}, nil},
		"two libraries, both hold":         {[]localfiles.Patch{holds, same}, []string{"CVE-1", "CVE-3", "CVE-5"}},
		"two libraries, one does not":      {[]localfiles.Patch{holds, contradicts}, []string{"CVE-3"}},
		"two libraries, one is not in use": {[]localfiles.Patch{holds, {CVEs: []string{"CVE-1"}}}, []string{"CVE-1", "CVE-3"}},
	} {
		if got := (localfiles.Truth{Patches: tt.patches}).Covered(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestFilesTellTheTruthToEverybody(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if covered, err := localfiles.IsCovered(dir, "CVE-1"); covered || err != nil {
		t.Errorf("without files: %v, %v", covered, err)
	}
	truth := localfiles.Truth{SystemID: "S-1", BootID: "b", Time: time.Unix(1000, 0), Patches: []localfiles.Patch{
		{Path: "user/aa/level-1.lmp", BuildID: "aa", Level: 1, Patched: 3, CVEs: []string{"CVE-10", "CVE-2"}},
	}}
	if err := localfiles.Write(dir, truth); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, localfiles.CVEList))
	if err != nil || string(list) != "CVE-10\nCVE-2\n" {
		t.Errorf("list %q, %v", list, err)
	}
	for cve, want := range map[string]bool{"CVE-10": true, "CVE-2": true, "CVE-1": false, "": false, "CVE-10\nCVE-2": false} {
		if got, err := localfiles.IsCovered(dir, cve); got != want || err != nil {
			t.Errorf("IsCovered(%q) = %v, %v", cve, got, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, localfiles.State))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		BootID  string `json:"boot_id"`
		Covered []string
		Patches []struct {
			Processes int `json:"processes_patched"`
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.BootID != "b" || len(doc.Covered) != 2 || doc.Patches[0].Processes != 3 {
		t.Errorf("state %s, %v", b, err)
	}
	for _, name := range []string{localfiles.CVEList, localfiles.State} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	truth.Patches = nil
	if err := localfiles.Write(dir, truth); err != nil {
		t.Fatal(err)
	}
	if covered, err := localfiles.IsCovered(dir, "CVE-2"); covered || err != nil {
		t.Errorf("after the patch is gone: %v, %v", covered, err)
	}
}
