package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"livemend.dev/livemend/demo/show"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/platform"
)

// The flaw that is repaired, and the package update that would repair it too.
const (
	vulnerability = "CVE-2026-46333"
	severity      = "high"
	distribution  = "debian-12"
	fixedVersion  = "6.1.172-1"
)

// hostname is the server's, and serverMemory is what it has beside the files of
// its root, which lie in memory, in megabytes.
const (
	hostname     = "kestrel"
	serverMemory = 700
)

// nobody is a user without rights.
const nobody = 65534

// tour is what the steps know, each from those before it.
type tour struct {
	stage    *stage.Stage
	password string // set in place of the one-time password
	portal   *stage.Portal
	platform *stage.Platform
	console  *stage.Console

	server  *guest.Guest
	kernel  identity
	install platform.Install
	key     platform.CreatedKey
	system  string // its System ID
	scan    fleet.Job
	patch   fleet.Patch
	job     platform.JobDetail
	before  string // what was running before anything was applied
}

// identity is what the server's kernel says of itself.
type identity struct{ release, buildID string }

// steps is the whole demonstration in order. The paper's steps are those of its
// first scenario and of its second diagram; make demo shows the others.
func (t *tour) steps() []show.Step {
	return []show.Step{
		{Title: "Portal and platform", Do: t.startServices},
		{Title: "A server with a vulnerable kernel", Do: t.startServer},
		{Title: "A kernel live patch from the distribution's source, signed and published", Do: t.publish},

		{Paper: "part 1, key", Title: "Create a Key for LivePatching", Do: t.createKey},
		{Paper: "part 1, 1.1", Title: "Activate LivePatching: the key is retrieved", Do: t.activate},
		{Paper: "part 1, install", Title: "The agent is installed by one command", Do: t.installAgent},
		{Paper: "part 1, 1.2", Title: "Add new server: system information and key go to the portal", Do: t.registered},
		{Paper: "part 1, 1.3", Title: "The portal returns the System ID to the platform", Do: t.systemID},

		{Paper: "arrow 1", Title: "Start Scanning", Do: t.startScan},
		{Paper: "arrow 2", Title: "Perform Scan", Do: t.performScan},
		{Paper: "arrow 3", Title: "Scan Results", Do: t.scanResults},
		{Paper: "arrow 4", Title: "Show Scan Results", Do: t.showScanResults},
		{Paper: "arrow 5", Title: "kc-patch metadata for kernel", Do: t.patchMetadata},
		{Paper: "arrow 6", Title: "Map kc-patch metadata with Partner Patch metadata", Do: t.mapMetadata},
		{Paper: "arrow 7", Title: "Create deploy job to apply latest kc-patch", Do: t.createJob},
		{Paper: "arrow 8", Title: "Generate and send job manifest", Do: t.manifest},
		{Paper: "arrow 9", Title: "Apply latest kc-patch", Do: t.ordered},
		{Paper: "arrow 10", Title: "Download kc-patch", Do: t.downloaded},
		{Paper: "arrow 11", Title: "kpatch.bin + signatures", Do: t.signatures},
		{Paper: "arrow 12", Title: "Verify signatures", Do: t.checked},
		{Paper: "arrow 13", Title: "Apply patch", Do: t.applied},
		{Paper: "arrow 14", Title: "Generate job result", Do: t.resultMade},
		{Paper: "arrow 15", Title: "Job result", Do: t.resultSent},
		{Paper: "arrow 16", Title: "Process job result", Do: t.resultProcessed},

		{Title: "The same question gets the other answer; nothing was restarted", Do: t.fixed},
		{Title: "A second scan shows the finding as resolved by the live patch", Do: t.resolved},
		{Title: "Revert brings the flaw back", Do: t.revert},
		{Title: "Apply again removes it", Do: t.again},
		{Title: "The distribution's own fixed kernel answers the same", Do: t.compare},
	}
}

// end ends the server.
func (t *tour) end() {
	if t.server != nil {
		t.server.Kill()
	}
}

// startServices starts portal and platform and signs in for the first time.
func (t *tour) startServices(ctx context.Context) (string, error) {
	var err error
	if t.portal, err = t.stage.StartPortal(ctx); err != nil {
		return "", err
	}
	if t.platform, err = t.stage.StartPlatform(ctx, t.portal, guest.HostAddress); err != nil {
		return "", err
	}
	if t.console, err = stage.SignIn(ctx, t.platform.URL, "admin", t.platform.OneTime, t.password); err != nil {
		return "", err
	}
	return fmt.Sprintf("portal %s, platform %s, which the server sees at %s", t.portal.URL, t.platform.URL, guest.HostAddress), nil
}

// startServer boots the vulnerable kernel and asks it.
func (t *tour) startServer(ctx context.Context) (string, error) {
	var answer string
	var err error
	if t.server, answer, err = t.boot(ctx, guest.Config{Kernel: guest.Debian61, Network: true}, "server"); err != nil {
		return "", err
	}
	if err := is(answer, "VULNERABLE"); err != nil {
		return "", err
	}
	if t.kernel, err = identify(t.server); err != nil {
		return "", err
	}
	if t.before, err = t.sh("cat /proc/sys/kernel/random/boot_id"); err != nil {
		return "", err
	}
	return fmt.Sprintf("kernel %s, build-id %s, boot %s\n%s of it, by user %d: %s", t.kernel.release, t.kernel.buildID, t.before, vulnerability, nobody, answer), nil
}

// boot starts a server, whose files are made here, with one of the distribution's
// kernels, and returns what the oracle says.
func (t *tour) boot(ctx context.Context, c guest.Config, name string) (g *guest.Guest, answer string, err error) {
	work := filepath.Join(t.stage.Dir, name)
	if err := os.Mkdir(work, 0o755); err != nil {
		return nil, "", err
	}
	files, err := root(ctx, work, c.Kernel)
	if err != nil {
		return nil, "", err
	}
	probe, err := guest.Program(ctx, "livemend.dev/livemend/author/kernel/fixes/probe")
	if err != nil {
		return nil, "", err
	}
	files[oracle] = filepath.Join(work, "probe")
	if err := os.WriteFile(files[oracle], probe, 0o755); err != nil {
		return nil, "", err
	}
	megabytes, err := size(files)
	if err != nil {
		return nil, "", err
	}
	maps.Copy(files, c.Files)
	// Files of the first file system are in memory twice until it is unpacked.
	c.Files, c.SMP, c.Memory = files, 2, serverMemory+2*int(megabytes)
	g, err = guest.Start(ctx, c)
	if err != nil {
		return nil, "", err
	}
	if _, err = sh(g, "echo "+hostname+" >/proc/sys/kernel/hostname; ldconfig"); err == nil {
		answer, err = ask(g)
	}
	if err != nil {
		g.Kill()
		return nil, "", err
	}
	return g, answer, nil
}

// oracle is a program on the server that asks its kernel for something that only
// a kernel with the flaw gives; it does not use what it gets. The question of
// this one: may a user look into a process that hides from him, once it ended?
const (
	oracle   = "/usr/lib/livemend-demo/probe"
	question = "ptrace-zombie"
)

// ask runs the oracle as a user without rights. It answers fixed or vulnerable.
func ask(g *guest.Guest) (string, error) {
	r, err := g.Run(guest.Command{Args: []string{oracle, question}, UID: nobody, Env: environment, Timeout: time.Minute})
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return "", fmt.Errorf("the oracle ended with %d: %s", r.Exit, r.Stderr)
	}
	return strings.ToUpper(words(r.Stdout)), nil
}

// sh runs shell commands as the server's administrator.
func (t *tour) sh(script string) (string, error) { return sh(t.server, script) }

func sh(g *guest.Guest, script string) (string, error) {
	r, err := g.Run(guest.Command{Args: []string{"/bin/sh", "-c", script}, Env: environment, Timeout: 5 * time.Minute})
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return "", fmt.Errorf("%.60s: ended with %d\n%s%s", script, r.Exit, r.Stdout, r.Stderr)
	}
	return string(r.Stdout), nil
}
