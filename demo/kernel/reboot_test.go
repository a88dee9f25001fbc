package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/platform"
)

// TestRestarts follows one server, whose state is on a disk, through restarts. A
// patch that proved itself comes back before there is a network; one that the
// server went down with stays away; another kernel gets none.
func TestRestarts(t *testing.T) {
	tr := open(t)
	ctx := t.Context()
	disk := guest.Disk(t)
	agent := map[string]string{"/usr/sbin/livemend-agent": guest.Built(t, "livemend.dev/livemend/cmd/livemend-agent", "-ldflags=-X main.probation=3s")}
	const state = "livemend-agent --state /disk/livemend "

	source, err := os.ReadFile("../../agent/kernel/testdata/patch.c")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := os.ReadFile(guest.Module(t, guest.Debian61, "stranger", "#define TEXT \"stranger\"\n"+string(source)))
	if err != nil {
		t.Fatal(err)
	}

	boot := func(name string, c guest.Config, want string) {
		t.Helper()
		c.Disk, c.Files = disk, agent
		var answer string
		var err error
		if tr.server, answer, err = tr.boot(ctx, c, name); err != nil {
			t.Fatal(err)
		}
		if err := is(answer, want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	says := func(want string) {
		t.Helper()
		answer, err := ask(tr.server)
		if err == nil {
			err = is(answer, want)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	do := func(f func(context.Context) (string, error)) {
		t.Helper()
		if _, err := f(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(script string) string {
		t.Helper()
		out, err := tr.sh(script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	do(tr.startServices)
	boot("first", guest.Config{Kernel: guest.Debian61, Network: true}, "VULNERABLE")
	if tr.kernel, err = identify(tr.server); err != nil {
		t.Fatal(err)
	}
	do(tr.publish)
	do(tr.createKey)
	if tr.install, err = tr.console.AddServer(ctx, platform.NewServer{Scenario: platform.ByKey, KeyID: tr.key.ID}); err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSuffix(tr.install.ScriptURL, "/install")
	sh("LIVEMEND_TRUST=" + tr.install.TrustDigest + " LIVEMEND_KEY=" + tr.key.Text + " " + state + "enrol --server " + url)
	sh("setsid " + state + "run >/tmp/agent.log 2>&1 & echo $! >/run/agent.pid")
	for _, step := range []func(context.Context) (string, error){
		tr.registered, tr.startScan, tr.performScan, tr.patchMetadata, tr.mapMetadata, tr.createJob, tr.manifest,
	} {
		do(step)
	}
	says("FIXED")
	logged := func(words string) {
		t.Helper()
		err := stage.Until(ctx, "the agent says "+words, func() (bool, error) {
			log, err := tr.server.Get("/tmp/agent.log")
			return strings.Contains(string(log), words), err
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, sh("cat /tmp/agent.log"))
		}
	}
	logged("has proved itself")
	sh("kill $(cat /run/agent.pid)")
	logged("livemend-agent ended")
	if err := tr.server.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}

	boot("second", guest.Config{Kernel: guest.Debian61}, "VULNERABLE")
	// A patch that replaces all others does not take the place of a stranger's.
	if err := tr.server.Insert(stranger, ""); err != nil {
		t.Fatal(err)
	}
	if out := sh(state + "boot 2>&1 || true"); !strings.Contains(out, "the live patch stranger, which this agent did not load") {
		t.Errorf("beside another live patch the agent says: %s", out)
	}
	says("VULNERABLE")
	sh("cd /sys/kernel/livepatch; echo 0 >stranger/enabled; while [ -d stranger ]; do sleep 0.1; done")
	if err := tr.server.Remove("stranger"); err != nil {
		t.Fatal(err)
	}
	sh(state + "boot")
	says("FIXED")
	sh("livemend-agent is-covered " + vulnerability)
	tr.server.Kill() // the power is cut while the patch is on probation again

	boot("third", guest.Config{Kernel: guest.Debian61}, "VULNERABLE")
	sh(state + "boot >/tmp/boot.log 2>&1 || true")
	says("VULNERABLE")
	if out := sh("livemend-agent status; cat /tmp/boot.log"); !strings.Contains(out, `"quarantined":[{`) || !strings.Contains(out, "went down") {
		t.Errorf("the patch is not in quarantine: %s", out)
	}
	if err := tr.server.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}

	boot("fixed", guest.Config{Kernel: guest.Debian61Fixed}, "FIXED")
	sh(state + "boot")
	if out := sh("ls /sys/kernel/livepatch"); out != "" {
		t.Errorf("a live patch was loaded into another kernel: %s", out)
	}
}
