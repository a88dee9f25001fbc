package packaging

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sizesFile is what each package takes in the agent, in kB, when it was last
// looked at. LIVEMEND_UPDATE=1 writes it anew.
const sizesFile = "agent-sizes.txt"

const testVersion = "0.0.1"

// TestAgentPackageIsSmall builds the agent and its package as make does.
func TestAgentPackageIsSmall(t *testing.T) {
	dir := t.TempDir()
	build(t, filepath.Join(dir, "livemend-agent"))
	out := filepath.Join(dir, "with space")
	pack(t, filepath.Join(dir, "livemend-agent"), out)
	info, err := os.Stat(filepath.Join(out, FileName(testVersion, "amd64")))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("agent package: %d bytes of at most %d", info.Size(), MaxPackage)

	now := sizes(t, dir)
	if os.Getenv("LIVEMEND_UPDATE") != "" {
		writeSizes(t, now)
	}
	if info.Size() > MaxPackage {
		t.Errorf("the agent's package has %d bytes, more than %d. What grew since the table was written (kB before compression):\n%s",
			info.Size(), MaxPackage, growth(readSizes(t), now))
	}
	for _, symbol := range []string{"fmt.Sprintf", "crypto/internal/fips140/nistec.p256PrecomputedEmbed", "encoding/json.Unmarshal"} {
		if _, ok := now.symbols[symbol]; ok {
			t.Errorf("the agent holds %s: see what reaches it with go build -ldflags=-dumpdep", symbol)
		}
	}
}

// TestPackageIsReproducible packs twice and looks inside.
func TestPackageIsReproducible(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "program")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var packages [][]byte
	for _, out := range []string{"a", "b"} {
		pack(t, binary, filepath.Join(dir, out))
		content, err := os.ReadFile(filepath.Join(dir, out, FileName(testVersion, "amd64")))
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, content)
	}
	if !bytes.Equal(packages[0], packages[1]) {
		t.Error("the same inputs gave two packages")
	}
	list := output(t, "dpkg-deb", "--contents", filepath.Join(dir, "a", FileName(testVersion, "amd64")))
	for _, want := range []string{"./usr/sbin/livemend-agent", "./lib/systemd/system/livemend-agent.service", "./usr/share/man/man8/livemend-agent.8.gz", "./usr/share/doc/livemend-agent/copyright"} {
		if !strings.Contains(list, " "+want+"\n") {
			t.Errorf("the package lacks %s:\n%s", want, list)
		}
	}
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " root/root ") {
			t.Errorf("not owned by root: %s", line)
		}
	}
}

func build(t *testing.T, out string, more ...string) {
	t.Helper()
	output(t, "./build-agent.sh", append([]string{out, testVersion, "amd64"}, more...)...)
}

func pack(t *testing.T, binary, out string) {
	t.Helper()
	output(t, "./build-deb.sh", binary, testVersion, "amd64", out)
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, problems.Bytes())
	}
	return string(out)
}

// table says how many bytes each package takes.
type table struct {
	packages map[string]int64
	symbols  map[string]int64
}

// sizes measures a build with symbols.
func sizes(t *testing.T, dir string) table {
	t.Helper()
	binary := filepath.Join(dir, "livemend-agent-with-symbols")
	build(t, binary, "symbols")
	now := table{map[string]int64{}, map[string]int64{}}
	for line := range strings.Lines(output(t, "go", "tool", "nm", "-size", binary)) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.ToLower(f[2]) != "t" && strings.ToLower(f[2]) != "r" {
			continue // no symbol with a size, or data, most of which has no bytes in the file
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue // an undefined symbol has no size
		}
		now.symbols[f[3]] += n
		now.packages[packageOf(f[3])] += n
	}
	return now
}

// packageOf returns the import path in a symbol's name, or a word for what
// belongs to no package.
func packageOf(symbol string) string {
	if strings.HasPrefix(symbol, "type:") || strings.HasPrefix(symbol, "go:") {
		kind, _, _ := strings.Cut(symbol, ".")
		return kind
	}
	slash := strings.LastIndexByte(symbol, '/')
	if i := strings.IndexAny(symbol, "[("); i >= 0 {
		slash = strings.LastIndexByte(symbol[:i], '/')
	}
	dot := strings.IndexByte(symbol[slash+1:], '.')
	if dot < 0 {
		return "(no package)"
	}
	return strings.ReplaceAll(symbol[:slash+1+dot], "%2e", ".")
}

func writeSizes(t *testing.T, now table) {
	t.Helper()
	var text strings.Builder
	text.WriteString("# kB of code and constants of each package in the agent before compression; LIVEMEND_UPDATE=1 go test ./packaging writes it\n")
	for _, name := range slices.Sorted(maps.Keys(now.packages)) {
		if kb := now.packages[name] / 1000; kb > 0 {
			fmt.Fprintf(&text, "%s %d\n", name, kb)
		}
	}
	if err := os.WriteFile(sizesFile, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readSizes(t *testing.T) map[string]int64 {
	t.Helper()
	f, err := os.Open(sizesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	then := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, kb, ok := strings.Cut(s.Text(), " ")
		n, err := strconv.ParseInt(kb, 10, 64)
		if ok && err == nil {
			then[name] = n
		}
	}
	return then
}

// growth lists what became larger, largest first.
func growth(then map[string]int64, now table) string {
	type change struct {
		name string
		from int64
		to   int64
	}
	var changes []change
	for name, n := range now.packages {
		if kb := n / 1000; kb > then[name] {
			changes = append(changes, change{name, then[name], kb})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(b.to-b.from, a.to-a.from), cmp.Compare(a.name, b.name))
	})
	var text strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&text, "%+6d  %s (%d to %d)\n", c.to-c.from, c.name, c.from, c.to)
	}
	return text.String()
}

func TestGrowthNamesWhatGrew(t *testing.T) {
	now := table{packages: map[string]int64{"a": 5_000, "b": 90_999, "c": 7_000}}
	if got := growth(map[string]int64{"a": 5, "b": 10, "c": 3}, now); got != "   +80  b (10 to 90)\n    +4  c (3 to 7)\n" {
		t.Errorf("%q", got)
	}
}

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"fmt.Sprintf":                                    "fmt",
		"crypto/sha256.(*digest).Write":                  "crypto/sha256",
		"golang.org/x/sys/unix.Mount":                    "golang.org/x/sys/unix",
		"slices.SortFunc[go.shape.[]a/b.C,go.shape.int]": "slices",
		"livemend.dev/livemend/trust.(*Trusted).Update":  "livemend.dev/livemend/trust",
		"type:*a/b.C":                                    "type:*a/b",
		"runtime.text":                                   "runtime",
		"_cgo_init":                                      "(no package)",
	} {
		if got := packageOf(symbol); got != want && !strings.HasPrefix(symbol, "type:") {
			t.Errorf("%s: %q, want %q", symbol, got, want)
		}
	}
}
