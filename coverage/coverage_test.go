package coverage_test

import (
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/wire"
)

const (
	libID    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	otherID  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	kernelID = "cccccccccccccccccccccccccccccccccccccccc"
	cve      = "LIVEMEND-2026-0001"
	library  = "/usr/lib/libechobeat.so.1"
)

func userPatch(level int64, refused string) coverage.Patch {
	m := &patch.Metadata{ID: "U-" + string('0'+rune(level)), Kind: patch.User, Level: level,
		Target: patch.Target{BuildID: libID, Arch: "amd64", Library: "libechobeat.so.1"},
		Fixes:  []patch.Fix{{CVE: cve, Severity: "high", Component: "libechobeat1", Distribution: "debian-12", FixedVersion: "1.0-2"}}}
	return coverage.Patch{Path: m.Path(), Metadata: m, Refused: refused}
}

func kernelPatch() coverage.Patch {
	m := &patch.Metadata{ID: "K-1", Kind: patch.Kernel, Level: 1,
		Target: patch.Target{BuildID: kernelID, Arch: "amd64", Release: "6.1.0-47-amd64"},
		Fixes:  []patch.Fix{{CVE: "CVE-2026-1", Component: "linux", FixedVersion: "6.1.200-1"}}}
	return coverage.Patch{Path: m.Path(), Metadata: m}
}

func finding(open bool) coverage.Finding {
	return coverage.Finding{CVE: cve, Component: "libechobeat1", Installed: "1.0-1", Fixed: "1.0-2",
		Severity: "high", Title: "Out-of-bounds read", Scanner: "openscap", Open: open}
}

// base is a server whose library has the flaw, is in use by three processes,
// and for which a live patch is offered.
func base() coverage.Input {
	return coverage.Input{
		Known:     true,
		Facts:     wire.Facts{OS: "debian", OSVersion: "12", Kernel: "6.1.0-47-amd64", KernelID: kernelID},
		Libraries: []wire.Library{{BuildID: libID, Path: library, Processes: 3}},
		Packages:  []wire.Package{{Name: "libechobeat1", Version: "1.0-1", Source: "echobeat"}},
		Findings:  []coverage.Finding{finding(true)},
		Patches:   []coverage.Patch{userPatch(1, "")},
		Updates:   []coverage.Update{{CVE: cve, Component: "libechobeat1", Distribution: "debian-12", FixedVersion: "1.0-2", Advisory: "DSA-1"}},
	}
}

func applied(processes int64) []wire.Applied {
	p := userPatch(1, "")
	return []wire.Applied{{Path: p.Path, Level: 1, Processes: processes, CVEs: []string{cve}}}
}

func TestStates(t *testing.T) {
	tests := []struct {
		name   string
		change func(*coverage.Input)
		state  coverage.State
		scope  string
		path   string // of the patch
		update string
		reason string // part of it
	}{
		{"a patch fits the library in memory", func(*coverage.Input) {},
			coverage.Available, "library " + libID, userPatch(1, "").Path, "1.0-2", "in use by 3 processes"},
		{"the newest level is offered", func(in *coverage.Input) { in.Patches = append(in.Patches, userPatch(2, "")) },
			coverage.Available, "library " + libID, userPatch(2, "").Path, "1.0-2", "level 2"},
		{"a withdrawn newest level is not offered", func(in *coverage.Input) { in.Patches = append(in.Patches, userPatch(2, "withdrawn")) },
			coverage.Available, "library " + libID, userPatch(1, "").Path, "1.0-2", "level 1"},
		{"the only patch is withdrawn", func(in *coverage.Input) { in.Patches[0].Refused = "withdrawn by the portal" },
			coverage.Vulnerable, "library " + libID, "", "1.0-2", "withdrawn by the portal"},
		{"applied to every process", func(in *coverage.Input) { in.Applied = applied(3) },
			coverage.LivePatched, "library " + libID, userPatch(1, "").Path, "1.0-2", "applied to all 3 processes"},
		{"applied and withdrawn since", func(in *coverage.Input) { in.Applied = applied(3); in.Patches[0].Refused = "withdrawn" },
			coverage.LivePatched, "library " + libID, userPatch(1, "").Path, "1.0-2", "level 1 is applied"},
		{"applied, and the scanner agrees", func(in *coverage.Input) { in.Applied = applied(3); in.Findings[0].Open = false },
			coverage.LivePatched, "library " + libID, userPatch(1, "").Path, "1.0-2", "applied to all"},
		{"applied, never scanned", func(in *coverage.Input) { in.Applied = applied(3); in.Findings = nil },
			coverage.LivePatched, "library " + libID, userPatch(1, "").Path, "1.0-2", "applied to all"},
		{"applied to some processes only", func(in *coverage.Input) { in.Applied = applied(2) },
			coverage.Available, "library " + libID, userPatch(1, "").Path, "1.0-2", "applied to 2 of 3 processes"},
		{"reverted after the scan that saw it resolved", func(in *coverage.Input) { in.Findings[0].Open = false },
			coverage.Available, "library " + libID, userPatch(1, "").Path, "1.0-2", "fits"},
		{"updated on disk, old library still mapped", func(in *coverage.Input) {
			in.Packages[0].Version = "1.0-2"
			in.Libraries[0].Deleted = true
		}, coverage.FixedOnDisk, "library " + libID, userPatch(1, "").Path, "", "still in use by 3 processes"},
		{"another build of the library", func(in *coverage.Input) { in.Libraries[0].BuildID = otherID },
			coverage.Vulnerable, "package on disk", "", "1.0-2", "fits no binary that is in use here"},
		{"no patch", func(in *coverage.Input) { in.Patches = nil },
			coverage.Vulnerable, "package on disk", "", "1.0-2", "no live patch for it yet"},
		{"no inventory", func(in *coverage.Input) { *in = coverage.Input{Findings: in.Findings, Patches: in.Patches} },
			coverage.Unknown, "package on disk", "", "", "no"},
		{"the scanner says fixed", func(in *coverage.Input) { in.Findings[0].Open = false; in.Libraries = nil },
			coverage.NotAffected, "package on disk", "", "1.0-2", "does not report it any more"},
		{"updated after the scan", func(in *coverage.Input) { in.Packages[0].Version = "1.0-3"; in.Libraries = nil },
			coverage.NotAffected, "package on disk", "", "", "1.0-3 was installed"},
		{"update of another distribution", func(in *coverage.Input) { in.Updates[0].Distribution = "debian-11" },
			coverage.Available, "library " + libID, userPatch(1, "").Path, "", "fits"},
		{"the scanner names the source package", func(in *coverage.Input) { in.Findings[0].Component = "echobeat" },
			coverage.Available, "library " + libID, userPatch(1, "").Path, "1.0-2", "fits"},
		{"an installed version that is no version", func(in *coverage.Input) { in.Packages[0].Version = "!"; in.Libraries = nil },
			coverage.Vulnerable, "package on disk", "", "1.0-2", "fits no binary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			tt.change(&in)
			rows := coverage.Compute(in)
			if len(rows) != 1 {
				t.Fatalf("got %d rows, want 1: %+v", len(rows), rows)
			}
			r := rows[0]
			if r.State != tt.state || r.Scope != tt.scope || r.PatchPath != tt.path || r.Update != tt.update {
				t.Errorf("got state %q scope %q patch %q update %q\nwant      %q       %q       %q        %q", r.State, r.Scope, r.PatchPath, r.Update, tt.state, tt.scope, tt.path, tt.update)
			}
			if !strings.Contains(r.Reason, tt.reason) {
				t.Errorf("reason %q does not say %q", r.Reason, tt.reason)
			}
		})
	}
}

func TestKernel(t *testing.T) {
	in := base()
	in.Patches = []coverage.Patch{kernelPatch()}
	in.Updates = nil
	in.Findings = []coverage.Finding{
		{CVE: "CVE-2026-1", Component: "linux-image-6.1.0-47-amd64", Installed: "6.1.170-3", Open: true},
		{CVE: "CVE-2026-1", Component: "linux-image-6.1.0-40-amd64", Installed: "6.1.153-1", Open: true},
	}
	state := func() map[string]coverage.State {
		out := map[string]coverage.State{}
		for _, r := range coverage.Compute(in) {
			out[r.Component] = r.State
		}
		return out
	}
	want := map[string]coverage.State{"linux-image-6.1.0-47-amd64": coverage.Available, "linux-image-6.1.0-40-amd64": coverage.NotRunning}
	if diff := cmp.Diff(want, state()); diff != "" {
		t.Errorf("not applied (-want +got):\n%s", diff)
	}
	in.Applied = []wire.Applied{{Path: kernelPatch().Path, Level: 1, Processes: 1}}
	want["linux-image-6.1.0-47-amd64"] = coverage.LivePatched
	if diff := cmp.Diff(want, state()); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	in.Applied = nil
	in.Packages = append(in.Packages, wire.Package{Name: "linux-image-6.1.0-60-amd64", Version: "6.1.200-1", Source: "linux-signed-amd64"})
	want["linux-image-6.1.0-47-amd64"] = coverage.FixedOnDisk
	if diff := cmp.Diff(want, state()); diff != "" {
		t.Errorf("newer kernel installed, not booted (-want +got):\n%s", diff)
	}
	in.Facts.KernelID = ""
	want["linux-image-6.1.0-47-amd64"] = coverage.Unknown
	if diff := cmp.Diff(want, state()); diff != "" {
		t.Errorf("unreadable build-id (-want +got):\n%s", diff)
	}
}

// anyInput draws servers from small sets, so that things meet.
func anyInput(t *rapid.T) coverage.Input {
	ids := rapid.SampledFrom([]string{libID, otherID, strings.Repeat("d", 40)})
	cves := rapid.SampledFrom([]string{"CVE-2026-1", "CVE-2026-2", cve})
	components := rapid.SampledFrom([]string{"liba", "libb", "src", "linux", "linux-image-6.1.0-47-amd64", ""})
	versions := rapid.SampledFrom([]string{"", "1.0-1", "1.0-2", "2:0.1", "not a version"})
	some := func(name string, f func(i int)) {
		for i := range rapid.IntRange(0, 4).Draw(t, name) {
			f(i)
		}
	}
	in := coverage.Input{Known: rapid.Bool().Draw(t, "known"), Facts: wire.Facts{OS: "debian", OSVersion: "12",
		Kernel: "6.1.0-47-amd64", KernelID: rapid.SampledFrom([]string{"", kernelID}).Draw(t, "kernel")}}
	some("libraries", func(int) {
		in.Libraries = append(in.Libraries, wire.Library{BuildID: ids.Draw(t, "id"), Path: "/lib", Processes: rapid.Int64Range(1, 3).Draw(t, "n")})
	})
	some("packages", func(i int) {
		in.Packages = append(in.Packages, wire.Package{Name: []string{"liba", "libb", "libc", "libd"}[i], Version: versions.Draw(t, "v"), Source: "src"})
	})
	some("findings", func(int) {
		in.Findings = append(in.Findings, coverage.Finding{CVE: cves.Draw(t, "cve"), Component: components.Draw(t, "component"),
			Fixed: versions.Draw(t, "fixed"), Scanner: "openscap", Open: rapid.Bool().Draw(t, "open")})
	})
	some("patches", func(i int) {
		m := &patch.Metadata{ID: string('A' + rune(i)), Kind: rapid.SampledFrom([]patch.Kind{patch.User, patch.Kernel}).Draw(t, "kind"), Level: int64(i + 1),
			Fixes: []patch.Fix{{CVE: patch.CVE(cves.Draw(t, "cve")), Component: components.Draw(t, "component"), FixedVersion: versions.Draw(t, "v")}}}
		m.Target.BuildID = patch.BuildID(ids.Draw(t, "id"))
		if m.Kind == patch.Kernel {
			m.Target.BuildID = kernelID
		}
		in.Patches = append(in.Patches, coverage.Patch{Path: m.Path(), Metadata: m, Refused: rapid.SampledFrom([]string{"", "withdrawn"}).Draw(t, "refused")})
		if rapid.Bool().Draw(t, "applied") {
			in.Applied = append(in.Applied, wire.Applied{Path: m.Path(), Level: m.Level, Processes: rapid.Int64Range(0, 4).Draw(t, "n")})
		}
	})
	return in
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		rows := coverage.Compute(in)
		offered := map[string]bool{}
		for _, p := range in.Patches {
			offered[p.Path] = p.Refused == ""
		}
		type key struct{ cve, component, scope string }
		seen := map[key]bool{}
		for _, r := range rows {
			k := key{r.CVE, r.Component, r.Scope}
			if seen[k] {
				t.Fatalf("two rows for %+v", k)
			}
			seen[k] = true
			if !slices.Contains(coverage.States, r.State) || r.Reason == "" {
				t.Fatalf("a row without state or reason: %+v", r)
			}
			if r.State == coverage.LivePatched && (len(in.Applied) == 0 || r.Patched != r.Processes || r.PatchPath == "") {
				t.Fatalf("live-patched without evidence: %+v", r)
			}
			if r.State == coverage.Available && !offered[r.PatchPath] {
				t.Fatalf("offers a patch that is not offered: %+v", r)
			}
		}
		for _, f := range in.Findings {
			if !slices.ContainsFunc(rows, func(r coverage.Row) bool { return r.CVE == f.CVE && r.Component == f.Component }) {
				t.Fatalf("no row for %+v", f)
			}
		}
		shuffled := in
		shuffled.Findings, shuffled.Patches = slices.Clone(in.Findings), slices.Clone(in.Patches)
		r := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		r.Shuffle(len(shuffled.Findings), func(i, j int) {
			shuffled.Findings[i], shuffled.Findings[j] = shuffled.Findings[j], shuffled.Findings[i]
		})
		r.Shuffle(len(shuffled.Patches), func(i, j int) {
			shuffled.Patches[i], shuffled.Patches[j] = shuffled.Patches[j], shuffled.Patches[i]
		})
		if diff := cmp.Diff(rows, coverage.Compute(shuffled)); diff != "" {
			t.Fatalf("the order of the input matters:\n%s", diff)
		}
		in.Applied = nil
		for _, r := range coverage.Compute(in) {
			if r.State == coverage.LivePatched {
				t.Fatalf("live-patched with nothing applied: %+v", r)
			}
		}
	})
}
