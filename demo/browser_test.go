package main

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/stage"
)

// TestInTheBrowser does by hand, in the platform's pages, what the
// demonstration does over the REST API: from the first sign-in to the second
// scan, on real servers.
func TestInTheBrowser(t *testing.T) {
	ctx := t.Context()
	tr := &tour{stage: open(t), password: rand.Text()}
	var err error
	if tr.portal, err = tr.stage.StartPortal(ctx); err != nil {
		t.Fatal(err)
	}
	if tr.platform, err = tr.stage.StartPlatform(ctx, tr.portal, ""); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func(context.Context) (string, error){tr.startHosts, tr.publish} {
		if _, err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	b := newBrowser(t, tr.platform.URL)

	b.open("/")
	b.write("[name=name]", "admin")
	b.write("[name=password]", tr.platform.OneTime)
	b.photograph("sign-in")
	b.press("main", "Sign in")
	b.write("[name=current]", tr.platform.OneTime)
	b.write("[name=password]", tr.password)
	b.write("[name=repeat]", tr.password)
	b.press("main", "Set password")
	b.photograph("overview-empty")

	b.enrol(ctx, tr)
	b.scanAndPatch(ctx, tr)

	if evidence, err := tr.noLeak(ctx); err != nil {
		t.Errorf("%s\n%v", evidence, err)
	}
	b.open("/scans")
	b.press("main", "Scan for vulnerabilities")
	b.finished()
	b.open("/vulnerabilities/" + sample.Vulnerability)
	b.says("live-patched")
	b.photograph("resolved")
	b.open("/")
	b.photograph("overview")
}

// enrol adds the two servers in the paper's two ways, and refuses the third.
func (b *browser) enrol(ctx context.Context, tr *tour) {
	t := b.t
	t.Helper()
	b.open("/keys")
	b.write("[name=note]", "by hand")
	b.press("main", "Create a Key for LivePatching")
	key := strings.TrimSpace(b.text("#key-text"))
	b.photograph("key")
	b.press("#created-key", "Activate LivePatching")
	command := b.command("LIVEMEND_KEY=" + key)
	b.photograph("activate")
	if _, err := tr.alpha.Run(ctx, nil, "sh", "-c", command); err != nil {
		t.Fatal(err)
	}

	b.open("/servers/add")
	b.photograph("add-server")
	b.write("[name=note]", "beta")
	b.press("form:has([value=customer])", "Add new server")
	command = b.command("LIVEMEND_TOKEN=")
	b.photograph("token")
	if _, err := tr.beta.Run(ctx, nil, "sh", "-c", command); err != nil {
		t.Fatal(err)
	}

	bare := withoutToken(command)
	ended := make(chan error, 1)
	go func() {
		_, err := tr.gamma.Run(ctx, nil, "sh", "-c", bare)
		ended <- err
	}()
	err := stage.Until(ctx, "gamma asks for approval", func() (bool, error) {
		b.open("/servers")
		return strings.Contains(b.text("main"), tr.gamma.Name), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.photograph("approval")
	b.press("main", "Refuse")
	if err := <-ended; err == nil {
		t.Error("the refused machine enrolled")
	}
	b.open("/servers")
	b.says(tr.alpha.Name)
	b.says(tr.beta.Name)
	b.photograph("servers")
}

// command returns the install command on the page that holds a text.
func (b *browser) command(holding string) string {
	b.t.Helper()
	b.until(`[...document.querySelectorAll("pre")].some(e => e.innerText.includes(` + quote(holding) + `) && (e.dataset.command = "1"))`)
	return b.text("pre[data-command]")
}

// withoutToken leaves the token out of an install command.
func withoutToken(command string) string {
	var words []string
	for w := range strings.FieldsSeq(command) {
		if !strings.HasPrefix(w, "LIVEMEND_TOKEN=") {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// scanAndPatch finds the vulnerability and live-patches it.
func (b *browser) scanAndPatch(ctx context.Context, tr *tour) {
	b.open("/patches")
	b.press("main", "Check for available Live Patches")
	b.open("/scans")
	b.photograph("scans")
	b.press("main", "Scan for vulnerabilities")
	b.finished()
	b.photograph("scan-job")
	b.open("/vulnerabilities")
	b.says(sample.Vulnerability)
	b.says("live patch available")
	b.photograph("findings")
	b.press("main", "LivePatch found vulnerabilities")
	b.photograph("patch-job")
	b.finished()
	b.photograph("patch-job-done")
}

// finished waits on a job's page until its live progress says that it is done.
func (b *browser) finished() {
	b.t.Helper()
	b.until(`location.pathname.startsWith("/jobs/")`)
	b.until(`/\bdone\b/i.test(document.querySelector("main").innerText) && !/\brunning\b/i.test(document.querySelector("main h1")?.parentElement.innerText || "")`)
}
