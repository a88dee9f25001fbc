package archtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// layers, from the top. A package may import packages of lower layers and, in
// its own layer, packages below its own folder. Every package has to be in one
// layer; the first that names it counts.
var layers = []struct {
	name    string
	folders []string
}{
	{"programs", []string{"cmd", "demo!", "demo/kernel"}},
	{"demonstration", []string{"demo/show", "demo/stage", "demo/evidence"}},
	{"demonstration's ground", []string{"demo/sample", "demo/world"}},
	{"tests of the platform, with a portal", []string{"platform/platformtest"}},
	{"tests of services", []string{"portal/portaltest", "author/authortest"}},
	{"adapters of the services", []string{"platform/web", "platform/api", "platform/agents", "portal/api", "author/debian", "author/kernel"}},
	{"services", []string{"platform", "portal!", "author!", "agent!"}},
	{"storage of the services", []string{"store/platformdb", "store/portaldb"}},
	{"parts of the services", []string{"portal/client", "author", "agent", "channel/server"}},
	{"the agent's package", []string{"packaging"}},
	{"signing", []string{"signer"}},
	{"repositories", []string{"trust/repo"}},
	{"signature schemes of others", []string{"trust/schemes"}},
	{"ends of the channel", []string{"channel/slim"}},
	{"shared with the agent", []string{"trust/client", "channel!", "channel/http1"}},
	{"connections of the agent", []string{"channel/tcp"}},
	{"tests of adapters", []string{"store/storetest"}},
	{"adapters without a domain", []string{"store!", "blob"}},
	{"domain, the platform's nouns", []string{"fleet"}},
	{"domain, rules", []string{"scan", "coverage", "rollout", "access", "audit"}},
	{"domain, trust", []string{"trust"}},
	{"domain, contracts", []string{"wire", "enrol", "patch/image", "patch/module"}},
	{"domain, patch", []string{"patch!"}},
	{"ground", []string{"internal"}},
}

// never names imports that the layers would allow and that are wrong.
var never = []struct{ from, to, why string }{
	{"platform", "portal!", "the platform talks to the portal as any third party does: through its public client"},
	{"platform", "portal/api", "see above"},
	{"platform", "store/portaldb", "see above"},
	{"portal", "platform", "the portal knows of no platform"},
	{"portal", "store/platformdb", "the portal knows of no platform"},
	{"agent", "store", "the agent has no database"},
	{"agent", "signer", "the agent signs with its own key only"},
	{"agent", "trust/repo", "the agent makes no metadata"},
	{"agent", "trust/schemes", "the agent believes Ed25519 only"},
	{"cmd/livemend-agent", "trust/schemes", "the agent believes Ed25519 only"},
	{"agent", "channel/server", "the agent has its own slim Noise"},
	{"author", "portal", "publishing is the program's wiring, not the author's"},
	{"trust", "wire", "the verifier knows of no messages"},
}

func TestImportsPointDownwards(t *testing.T) {
	for _, p := range packages(t) {
		from := p.folder()
		if layer(from) < 0 {
			t.Errorf("%s is in no layer: add it to docs/architecture.md and here", from)
			continue
		}
		for _, to := range imports(p) {
			if err := allowed(from, to); err != nil {
				t.Errorf("%s imports %s: %v", from, to, err)
			}
		}
	}
}

// allowed returns why from must not import to, or nil.
func allowed(from, to string) error {
	for _, n := range never {
		if under(from, []string{n.from}) && under(to, []string{n.to}) {
			return fmt.Errorf("%s", n.why)
		}
	}
	a, b := layer(from), layer(to)
	switch {
	case b < 0:
		return fmt.Errorf("%s is in no layer", to)
	case a < b, a == b && strings.HasPrefix(to, from+"/"), a == b && under(from, []string{"internal", "demo", "agent", "author"}):
		return nil
	}
	return fmt.Errorf("%q may not import %q", layers[a].name, layers[b].name)
}

func layer(folder string) int {
	return slices.IndexFunc(layers, func(l struct {
		name    string
		folders []string
	}) bool {
		return under(folder, l.folders)
	})
}

// TestRulesHold breaks the rules on purpose.
func TestRulesHold(t *testing.T) {
	for _, bad := range [][2]string{
		{"trust", "platform"}, {"platform", "portal"}, {"patch", "trust"}, {"agent/state", "store"},
		{"wire", "channel"}, {"portal", "portal/api"}, {"store", "platform"}, {"coverage", "store"},
		{"platform/web", "platform/api"}, {"agent/inventory", "channel/server"}, {"internal/cjson", "patch"},
	} {
		if allowed(bad[0], bad[1]) == nil {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
	for _, good := range [][2]string{
		{"cmd/livemend", "platform"}, {"platform/web", "platform"}, {"platform", "portal/client"}, {"trust", "internal/cjson"},
		{"agent", "agent/state"}, {"agent/link", "channel/slim"}, {"store/platformdb", "store"}, {"patch/image", "patch"},
	} {
		if err := allowed(good[0], good[1]); err != nil {
			t.Errorf("%s imports %s: %v", good[0], good[1], err)
		}
	}
}

// pure packages decide; they do no input or output of their own.
var (
	pure      = []string{"patch", "trust!", "trust/schemes", "wire", "enrol", "coverage", "rollout", "scan", "fleet", "internal/cjson"}
	impure    = []string{"os", "net", "net/http", "database/sql", "os/exec", "syscall", "crypto/rand", "math/rand", "math/rand/v2", "log", "log/slog", "context"}
	clockless = []string{"time.Now()", "time.Since(", "time.After(", "time.Sleep("}
)

func TestDomainIsPure(t *testing.T) {
	for _, p := range packages(t) {
		if !under(p.folder(), pure) {
			continue
		}
		for _, i := range p.Imports {
			if slices.Contains(impure, i) {
				t.Errorf("%s is domain and imports %s: give it values instead", p.folder(), i)
			}
		}
		for _, file := range files(t, p, p.GoFiles) {
			for _, call := range clockless {
				if strings.Contains(file.text, call) {
					t.Errorf("%s: %s) in the domain: the time is an argument", file.name, strings.TrimRight(call, "()"))
				}
			}
		}
	}
}
