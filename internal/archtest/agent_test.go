package archtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// linked is what the agent may link beside the standard library and the
// module's own packages named here.
var linked = []string{
	module + "/agent", module + "/channel", module + "/channel/slim", module + "/channel/http1",
	module + "/cmd/livemend-agent", module + "/enrol", module + "/internal/cjson", module + "/internal/entropy", module + "/internal/hextext",
	module + "/patch", module + "/patch/image", module + "/patch/module", module + "/trust", module + "/trust/client", module + "/wire",
	"filippo.io/edwards25519", "golang.org/x/crypto", "golang.org/x/sys",
}

// heavy packages and what each would add to the agent's package, compressed.
var heavy = map[string]string{
	"text/template": "292 kB", "crypto/ecdsa": "248 kB", "crypto/tls": "600 kB", "net/http": "1 MB",
	"encoding/json": "148 kB", "log/slog": "141 kB", "debug/elf": "121 kB", "crypto/ecdh": "100 kB",
	"regexp": "97 kB", "flag": "68 kB", "net/url": "61 kB", "log": "50 kB", "encoding/hex": "48 kB",
	"encoding/gob": "much", "encoding/xml": "much", "crypto/x509": "much", "database/sql": "much",
}

func TestAgentStaysSmall(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, "cmd", "livemend-agent", "main.go")); err != nil {
		t.Fatal(err)
	}
	deps, err := list("-deps", "./cmd/livemend-agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range deps {
		if cost, ok := heavy[p.ImportPath]; ok {
			t.Errorf("the agent links %s, which costs %s of its package; %s", p.ImportPath, cost, importers(deps, p.ImportPath))
		}
		if !p.Standard && !under(p.ImportPath, linked) {
			t.Errorf("the agent links %s, which is not on its list; %s", p.ImportPath, importers(deps, p.ImportPath))
		}
	}
}

// TestAgentWritesWithoutFmt looks at the agent's own packages: fmt itself stays
// in the list of dependencies through the standard library, unused.
func TestAgentWritesWithoutFmt(t *testing.T) {
	deps, err := list("-deps", "./cmd/livemend-agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range deps {
		if !strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		for _, bad := range []string{"fmt", "sort", "reflect", "math/big", "encoding/base64"} {
			if slices.Contains(p.Imports, bad) {
				t.Errorf("%s is linked into the agent and imports %s", p.folder(), bad)
			}
		}
	}
}

func importers(all []golang, path string) string {
	var names []string
	for _, p := range all {
		if slices.Contains(p.Imports, path) {
			names = append(names, p.ImportPath)
		}
	}
	return "imported by " + strings.Join(names, ", ")
}
