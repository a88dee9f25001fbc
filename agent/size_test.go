package agent_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxPacked bounds the agent's program as its package packs it, in bytes. The
// package itself may have 1,000,000.
const maxPacked = 1_000_000

// flags are those that the package is built with.
var flags = []string{"-trimpath", "-gcflags=all=-l", "-gcflags=crypto/...=", "-gcflags=filippo.io/...=", "-gcflags=golang.org/x/crypto/...="}

// heavy lists the symbols that one careless call links in, with much behind them.
var heavy = []string{
	"fmt.(*pp).", "fmt.Sprintf", "fmt.Errorf", "encoding/json.", "encoding/hex.", "encoding/base64.", "log.", "log/slog.",
	"flag.", "net.", "net/http.", "net/url.", "net/netip.", "regexp.", "text/template.", "html/template.", "debug/elf.",
	"crypto/ecdh.", "crypto/ecdsa.", "crypto/rsa.", "crypto/tls.", "crypto/x509.", "crypto/internal/fips140/nistec.",
	"math/big.(*", "compress/", "reflect.Value.Call", "reflect.Value.Method", "sort.Slice", "os/exec.", "os/user.",
	"github.com/",
}

func build(t *testing.T, name string, more ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", append(append(append([]string{"build"}, flags...), more...), "-o", out, "../cmd/livemend-agent")...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	return out
}

func TestNothingHeavyIsLinked(t *testing.T) {
	nm, err := exec.CommandContext(t.Context(), "go", "tool", "nm", build(t, "agent")).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(nm, []byte("\n")) {
		fields := strings.Fields(string(line))
		if len(fields) < 3 || fields[1] != "T" && fields[1] != "t" {
			continue
		}
		for _, prefix := range heavy {
			if name := fields[2]; strings.HasPrefix(name, prefix) && !strings.Contains(name, ".init") {
				t.Errorf("the agent links %s", name)
			}
		}
	}
}

func TestPackedSize(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed: install xz-utils to run this")
	}
	packed, err := exec.CommandContext(t.Context(), "xz", "--x86", "--lzma2=preset=9e,lc=4", "-c", build(t, "agent", "-ldflags=-s -w")).Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the agent packed: %d bytes", len(packed))
	if len(packed) > maxPacked {
		t.Errorf("the agent packed has %d bytes, %d too many: look at what grew with go tool nm -size -sort size", len(packed), len(packed)-maxPacked)
	}
}
