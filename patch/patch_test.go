package patch_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
)

func valid() *patch.Metadata {
	return &patch.Metadata{
		ID: "U20261123-f08160bd-2", Kind: patch.User, Level: 2,
		Target:      patch.Target{BuildID: "f08160bd59a9d726", Arch: "amd64", Library: "liblzma.so.5.4.1"},
		Fixes:       []patch.Fix{{CVE: "CVE-2026-1", Severity: "high", Component: "liblzma5", Distribution: "debian-12", FixedVersion: "5.4.1-1+deb12u2"}},
		Supersedes:  []string{"U20261122-f08160bd-1"},
		Requires:    []string{},
		Description: "bounds",
		Functions:   []patch.Function{{Name: "lzip_decode", Size: 812}},
		Provenance: patch.Provenance{Builder: "livemend 0.1", Compiler: "gcc 12.2.0",
			Inputs: []patch.Input{{Name: "liblzma.so.5.4.1", SHA256: "aa"}}, Waivers: []string{}},
	}
}

func TestCustomRoundTrip(t *testing.T) {
	want := valid()
	v, err := cjson.Parse(want.Custom().JSON())
	if err != nil {
		t.Fatal(err)
	}
	got, err := patch.ParseCustom(v)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata changed on the way (-want +got):\n%s", diff)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, breakIt := range map[string]func(*patch.Metadata){
		"no id":            func(m *patch.Metadata) { m.ID = "" },
		"unknown kind":     func(m *patch.Metadata) { m.Kind = "firmware" },
		"build-id no hex":  func(m *patch.Metadata) { m.Target.BuildID = "../../../../etc/passwd" },
		"build-id short":   func(m *patch.Metadata) { m.Target.BuildID = "abcd" },
		"no architecture":  func(m *patch.Metadata) { m.Target.Arch = "" },
		"kernel release":   func(m *patch.Metadata) { m.Kind = patch.Kernel },
		"level zero":       func(m *patch.Metadata) { m.Level = 0 },
		"level too high":   func(m *patch.Metadata) { m.Level = patch.MaxLevel + 1 },
		"no fixes":         func(m *patch.Metadata) { m.Fixes = nil },
		"fix without name": func(m *patch.Metadata) { m.Fixes[0].CVE = "" },
		"too many fixes":   func(m *patch.Metadata) { m.Fixes = make([]patch.Fix, patch.MaxFixes+1) },
		"long description": func(m *patch.Metadata) { m.Description = strings.Repeat("x", patch.MaxText+1) },
	} {
		m := valid()
		breakIt(m)
		if _, err := patch.ParseCustom(m.Custom()); !errors.Is(err, patch.ErrMetadata) {
			t.Errorf("%s: %v, want ErrMetadata", name, err)
		}
	}
}

func TestOtherTargetsAreNoPatches(t *testing.T) {
	content := patch.Content{Scanner: "openscap", Format: "oval-definitions-5.11", Title: "Debian 12"}
	for _, v := range []cjson.Value{{}, cjson.Object(), content.Custom()} {
		if _, err := patch.ParseCustom(v); !errors.Is(err, patch.ErrNotPatch) {
			t.Errorf("ParseCustom(%s) = %v, want ErrNotPatch", v.JSON(), err)
		}
	}
	if got, ok := patch.ParseContent(content.Custom()); !ok || got != content {
		t.Errorf("ParseContent = %+v, %v", got, ok)
	}
	if _, ok := patch.ParseContent(valid().Custom()); ok {
		t.Error("ParseContent takes a patch for scanner content")
	}
}

func TestPathNamesTargetAndLevel(t *testing.T) {
	m := valid()
	if got, want := m.Path(), "user/f08160bd59a9d726/level-2.lmp"; got != want {
		t.Errorf("Path() = %s, want %s", got, want)
	}
	if !m.Covers("CVE-2026-1") || m.Covers("CVE-2026-10") {
		t.Error("Covers is not an exact comparison")
	}
}
