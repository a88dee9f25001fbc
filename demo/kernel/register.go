package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/author/kernel"
	"livemend.dev/livemend/author/kernel/fixes"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/packaging"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/scan/oval"
)

// identify reads which kernel a server runs.
func identify(g *guest.Guest) (id identity, err error) {
	release, err := g.Get("/proc/sys/kernel/osrelease")
	if err != nil {
		return id, err
	}
	notes, err := g.Get("/sys/kernel/notes")
	if err != nil {
		return id, err
	}
	// A note of the owner GNU and type 3 is the build-id.
	at := strings.Index(string(notes), "\x14\x00\x00\x00\x03\x00\x00\x00GNU\x00")
	if at < 0 || len(notes) < at+32 {
		return id, errors.New("the kernel has no build-id")
	}
	return identity{words(release), fmt.Sprintf("%x", notes[at+12:at+32])}, nil
}

// publish builds the live patch, signs it offline and publishes it, with the
// scanner's content that describes the flaw.
func (t *tour) publish(ctx context.Context) (string, error) {
	out := filepath.Join(t.stage.Dir, "patch")
	fix, err := fixes.Diffs.ReadFile("diffs/" + vulnerability + ".diff")
	if err != nil {
		return "", err
	}
	diff := filepath.Join(t.stage.Dir, vulnerability+".diff")
	if err := os.WriteFile(diff, fix, 0o644); err != nil {
		return "", err
	}
	account, err := t.stage.Livemend(ctx, "patch", "build", "kernel", "--release", t.kernel.release, "--level", "1", "--id", "K-"+vulnerability, "--fix", diff,
		"--cve", fmt.Sprintf("%s,severity=%s,distribution=%s,fixed=%s", vulnerability, severity, distribution, fixedVersion), "--out", out)
	if err != nil && strings.Contains(err.Error(), kernel.ErrUnavailable.Error()) {
		return "", fmt.Errorf("%w: %w", guest.ErrUnavailable, err)
	}
	if err != nil {
		return "", err
	}
	return t.release(ctx, out, strings.TrimSpace(account))
}

// release signs and publishes what the author tool left in a folder, and the
// scanner's content.
func (t *tour) release(ctx context.Context, out, account string) (string, error) {
	var files []string
	for _, pattern := range []string{"*.ko", "*.json"} {
		found, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil || len(found) != 1 {
			return "", fmt.Errorf("the author tool left %d files %s: %w", len(found), pattern, err)
		}
		files = append(files, found[0])
	}
	if _, err := t.stage.Publish(ctx, t.portal, "patch", files...); err != nil {
		return "", err
	}
	content := oval.Document{Time: time.Now(), List: stage.CVEList, Vulnerabilities: []oval.Vulnerability{{
		ID: vulnerability, Title: "The kernel gives away files of a process that ends", Severity: severity,
		Package: guest.Debian61.Image.Name, FixedVersion: fixedVersion,
	}}}
	text, err := content.Write()
	if err != nil {
		return "", err
	}
	definitions := filepath.Join(t.stage.Dir, "definitions.xml")
	if err := os.WriteFile(definitions, text, 0o644); err != nil {
		return "", err
	}
	_, err = t.stage.Publish(ctx, t.portal, "content", definitions)
	return account, err
}

// createKey has the portal make a key.
func (t *tour) createKey(ctx context.Context) (string, error) {
	var err error
	if t.key, err = t.console.CreateKey(ctx, platform.NewKey{Note: "demonstration"}); err != nil {
		return "", err
	}
	return fmt.Sprintf("key %s: made by the portal, kept encrypted by the platform, shown once", t.key.ID), nil
}

// activate has the platform retrieve and decrypt the key.
func (t *tour) activate(ctx context.Context) (string, error) {
	install, err := t.console.Activate(ctx, t.key.ID)
	if err != nil {
		return "", err
	}
	if install.Key != t.key.Text {
		return "", errors.New("the platform gave out another key")
	}
	return "the platform decrypted the key that was made above\ntrust digest " + install.TrustDigest, nil
}

// installAgent runs the platform's command on the server.
func (t *tour) installAgent(ctx context.Context) (string, error) {
	var err error
	if t.install, err = t.console.AddServer(ctx, platform.NewServer{Scenario: platform.ByKey, KeyID: t.key.ID}); err != nil {
		return "", err
	}
	out, err := t.sh(t.install.Command)
	if err != nil {
		return "", err
	}
	version, err := t.sh(`dpkg-query -W -f '${Version} ${db:Status-Status}' livemend-agent`)
	if err != nil {
		return "", err
	}
	if !strings.HasSuffix(version, " installed") {
		return "", fmt.Errorf("dpkg says %q of the agent", version)
	}
	if n := t.install.Packages[0].Length; n > packaging.MaxPackage {
		return "", fmt.Errorf("the agent's package has %d bytes", n)
	}
	return fmt.Sprintf("package %s of %d bytes, by: curl ... | sh\n%s", t.install.Packages[0].Name, t.install.Packages[0].Length, strings.TrimSpace(out)), nil
}

// registered asks the portal what it was told.
func (t *tour) registered(ctx context.Context) (string, error) {
	customers, err := t.portal.Partner.Customers(ctx)
	if err != nil || len(customers) != 1 {
		return "", fmt.Errorf("the portal knows %d customers of the partner: %w", len(customers), err)
	}
	systems, err := t.portal.Partner.Systems(ctx, customers[0].ID)
	if err != nil || len(systems) != 1 || systems[0].Hostname != hostname {
		return "", fmt.Errorf("the portal lists %+v: %w", systems, err)
	}
	t.system = systems[0].ID
	return fmt.Sprintf("the portal registered %s of customer %s as %s", hostname, customers[0].ID, t.system), nil
}

var systemID = regexp.MustCompile(`"system_id":"([^"]+)"`)

// systemID wants portal, platform and agent to name the server alike.
func (t *tour) systemID(ctx context.Context) (string, error) {
	servers, err := t.console.Servers(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(servers, func(s platform.ServerSummary) bool { return s.ID == t.system && s.Hostname == hostname }) {
		return "", fmt.Errorf("the platform does not hold System ID %s", t.system)
	}
	var status string
	err = stage.Until(ctx, "the agent says which system it is", func() (bool, error) {
		status, err = t.sh("livemend-agent status")
		return err == nil, ctx.Err()
	})
	if err != nil {
		return "", err
	}
	if m := systemID.FindStringSubmatch(status); m == nil || m[1] != t.system {
		return "", fmt.Errorf("the agent does not keep %s: %s", t.system, status)
	}
	return hostname + " is " + t.system + " at the portal, on the platform and in the agent's state", nil
}
