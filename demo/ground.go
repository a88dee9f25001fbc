package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/demo/world"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/scan/oval"
)

// startServices starts portal and platform and signs in for the first time.
func (t *tour) startServices(ctx context.Context) (string, error) {
	var err error
	if t.portal, err = t.stage.StartPortal(ctx); err != nil {
		return "", err
	}
	if t.platform, err = t.stage.StartPlatform(ctx, t.portal, ""); err != nil {
		return "", err
	}
	if t.console, err = stage.SignIn(ctx, t.platform.URL, "admin", t.platform.OneTime, t.password); err != nil {
		return "", err
	}
	if _, err := stage.SignIn(ctx, t.platform.URL, "admin", t.platform.OneTime, "another-"+t.password); err == nil {
		return "", fmt.Errorf("the one-time password worked twice")
	}
	return fmt.Sprintf("portal %s, platform %s\nadministrator admin signed in with the one-time password, which worked once", t.portal.URL, t.platform.URL), nil
}

// startHosts builds the sample and runs it on two demo servers.
func (t *tour) startHosts(ctx context.Context) (string, error) {
	if err := t.stage.BuildSample(ctx); err != nil {
		return "", err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { t.alpha, err = t.stage.StartHost(gctx, "alpha", clients); return err })
	g.Go(func() (err error) { t.beta, err = t.stage.StartHost(gctx, "beta", clients); return err })
	g.Go(func() (err error) { t.gamma, err = t.stage.StartMachine(gctx, "gamma"); return err })
	if err := g.Wait(); err != nil {
		return "", err
	}
	if t.alpha.MachineID == t.beta.MachineID {
		return "", fmt.Errorf("alpha and beta have the same machine-id")
	}
	t.before = map[string][]world.Process{}
	lines, err := t.each(func(h *stage.Host) (string, error) {
		processes, err := h.Service()
		if err != nil {
			return "", err
		}
		t.before[h.Name] = processes
		return describe(processes) + ", " + h.Load.Stats().String(), nil
	})
	if err != nil {
		return "", err
	}
	leak, err := t.leaks(func(h *stage.Host) (sample.Finding, error) { return h.Probe(ctx) }, true)
	return lines + "\neach server lists exactly its own processes of the service, none of the other\n" + leak, err
}

// describe writes processes as pid/threads.
func describe(processes []world.Process) string {
	var words []string
	for _, p := range processes {
		words = append(words, fmt.Sprintf("%d (%d threads)", p.PID, p.Threads))
	}
	return "processes " + strings.Join(words, ", ")
}

// publish builds the live patch, signs it offline and publishes it, with the
// scanner's content that describes the bug.
func (t *tour) publish(ctx context.Context) (string, error) {
	built := t.stage.Sample
	out := filepath.Join(t.stage.Dir, "patch")
	account, err := t.stage.Livemend(ctx, "patch", "build", "user", "--before", built.Before, "--after", built.After,
		"--binary", built.Library, "--twin", built.Twin, "--level", "1", "--id", "U-"+sample.Vulnerability,
		"--fix", fmt.Sprintf("CVE=%s,severity=%s,component=%s,distribution=%s,fixed=%s",
			sample.Vulnerability, sample.Severity, sample.LibraryPackage, sample.Distribution, sample.FixedVersion),
		"--out", out)
	if err != nil {
		return "", err
	}
	if t.artifact.artifact, err = one(out, "*.lmp"); err != nil {
		return "", err
	}
	if t.artifact.metadata, err = one(out, "*.json"); err != nil {
		return "", err
	}
	if _, err := t.stage.Publish(ctx, t.portal, "patch", t.artifact.artifact, t.artifact.metadata); err != nil {
		return "", err
	}
	definitions := filepath.Join(t.stage.Dir, "definitions.xml")
	text, err := ovalDefinitions()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(definitions, text, 0o644); err != nil {
		return "", err
	}
	if _, err := t.stage.Publish(ctx, t.portal, "content", definitions); err != nil {
		return "", err
	}
	signed, err := t.portal.SignedFiles(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("library build-id %s, changed file %s\n%s\nthe repository serves %s", built.BuildID, built.FixedFile,
		strings.TrimSpace(account), names(signed)), nil
}

// update is the ordinary package update that would fix the bug too.
func update() fleet.Update {
	return fleet.Update{CVE: sample.Vulnerability, Component: sample.LibraryPackage, Distribution: sample.Distribution,
		FixedVersion: sample.FixedVersion, Advisory: "demonstration"}
}

// ovalDefinitions describes the bug for the scanner.
func ovalDefinitions() ([]byte, error) {
	d := oval.Document{Time: time.Now(), List: stage.CVEList, Vulnerabilities: []oval.Vulnerability{{
		ID: sample.Vulnerability, Title: "echobeat answers with more bytes than it was sent", Severity: sample.Severity,
		Package: sample.LibraryPackage, FixedVersion: sample.FixedVersion,
	}}}
	return d.Write()
}

// one returns the only file of a folder that matches.
func one(dir, pattern string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if ok, err := filepath.Match(pattern, e.Name()); err != nil {
			return "", err
		} else if ok {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d files are %s instead of one", len(found), pattern)
	}
	return found[0], nil
}
