package web

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a headless Chromium with an empty profile, and what its console said.
type browser struct {
	ctx  context.Context
	dir  string // for screenshots
	mu   sync.Mutex
	said []string
}

// newBrowser starts Chromium, or skips the test where there is none.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium here: install the package chromium to run the tests in a browser")
	}
	dir := os.Getenv("LIVEMEND_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		// Wait for the browser to end, so that its profile can be removed.
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("end the browser: %v", err)
		}
	})
	b := &browser{ctx: ctx, dir: dir}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	call(t, b, log.Enable, cdp.Empty{})
	return b
}

// listen runs on the goroutine that reads from the browser and must not block.
func (b *browser) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		b.note("exception: " + text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value)+a.Description)
			}
			b.note("console: " + strings.Join(words, " "))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			b.note(fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

func (b *browser) note(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, line)
}

// quiet fails the test when the console said anything since the last call.
func (b *browser) quiet(t *testing.T, where string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.said {
		t.Errorf("%s: the console says: %s", where, line)
	}
	b.said = nil
}

// run does one step after the other.
func (b *browser) run(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// call sends one command of the protocol.
func call[P, R any](t *testing.T, b *browser, command cdp.Command[P, R], params P) R {
	t.Helper()
	out, err := chromedp.Run(b.ctx, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// value evaluates an expression in the page.
func value[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("evaluate %s: %v", expression, err)
	}
	return out
}

// look sets the size of the window and the system's colours.
func (b *browser) look(t *testing.T, width, height int64, dark bool) {
	t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.run(t, chromedp.EmulateViewport(width, height))
	call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// photograph keeps a picture of the whole page.
func (b *browser) photograph(t *testing.T, name string) {
	t.Helper()
	b.until(t, `document.readyState === "complete" && document.body.offsetWidth > 0`)
	beyond := true
	picture := call(t, b, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{CaptureBeyondViewport: &beyond})
	if err := os.WriteFile(filepath.Join(b.dir, name+".png"), picture.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition in the page, also over a change of page.
func (b *browser) until(t *testing.T, condition string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	watch := `new Promise(done => { const look = () => (` + condition + `) ? done(true) : requestAnimationFrame(look); look(); })`
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](watch, chromedp.EvalAwaitPromise))
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v; the page says:\n%s", condition, err, value[string](t, b, `document.body.innerText`))
		case <-again.C: // the page changed while it was looked at
		}
	}
}

// open shows a page of the site and waits until it is complete.
func (b *browser) open(t *testing.T, address string) {
	t.Helper()
	b.run(t, chromedp.Navigate(address), chromedp.WaitReady(chromedp.CSS("main")))
}

// press clicks on an element.
func (b *browser) press(t *testing.T, selector string) {
	t.Helper()
	b.run(t, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// write types a text into a field.
func (b *browser) write(t *testing.T, selector, text string) {
	t.Helper()
	b.run(t, chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// fits fails the test when the page is wider than the window, or something is
// wider than the card that it is in.
func (b *browser) fits(t *testing.T, where string) {
	t.Helper()
	wide := value[[]string](t, b, `(() => {
		const w = document.documentElement.clientWidth, out = [];
		const name = e => e.tagName + "." + e.getAttribute("class") + " " + (e.textContent || "").trim().slice(0, 40);
		for (const card of document.querySelectorAll(".card")) {
			const right = card.getBoundingClientRect().right + 1;
			for (const e of card.querySelectorAll("*")) {
				if (e.closest(".table-wrap, .chips, .hidden-visually, .sheet, thead, pre, .clip, a.main") || e.getBoundingClientRect().right <= right) continue;
				out.push("card: " + name(e));
			}
		}
		if (document.documentElement.scrollWidth <= w) return out.slice(0, 6);
		for (const e of document.querySelectorAll("body *")) {
			if (e.getBoundingClientRect().right > w + 1) out.push(name(e));
		}
		return out.slice(0, 6);
	})()`)
	for _, line := range wide {
		t.Errorf("%s: wider than the window: %s", where, line)
	}
}

// accessible fails the test when a word lacks contrast (WCAG AA), a control
// lacks a name or an id is there twice.
func (b *browser) accessible(t *testing.T, where string) {
	t.Helper()
	for _, line := range value[[]string](t, b, `(() => {
		const out = new Set();
		const parse = c => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
		const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
		const ground = e => {
			for (; e; e = e.parentElement) {
				const c = parse(getComputedStyle(e).backgroundColor);
				if (c[3] === 1) return c;
			}
			return [255, 255, 255, 1];
		};
		const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (words.nextNode()) {
			const e = words.currentNode.parentElement, text = words.currentNode.textContent.trim();
			if (!text || !e.checkVisibility({ visibilityProperty: true }) || e.closest("[disabled], .hidden-visually, option, title, desc")) continue;
			const [a, z] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
			const ratio = (Math.max(a, z) + .05) / (Math.min(a, z) + .05);
			if (ratio < 4.5) out.add("contrast " + ratio.toFixed(2) + ": " + text.slice(0, 40));
		}
		for (const e of document.querySelectorAll("input:not([type=hidden]):not([hidden]), select, textarea")) {
			if (!e.labels.length && !e.getAttribute("aria-label")) out.add("no label: " + e.outerHTML.slice(0, 80));
		}
		for (const e of document.querySelectorAll("button, a[href], summary")) {
			if (!e.textContent.trim() && !e.getAttribute("aria-label")) out.add("no name: " + e.outerHTML.slice(0, 80));
		}
		const ids = new Set();
		for (const e of document.querySelectorAll("[id]")) ids.has(e.id) ? out.add("id twice: " + e.id) : ids.add(e.id);
		if (document.querySelectorAll("h1").length !== 1) out.add("not one main heading");
		return [...out];
	})()`) {
		t.Errorf("%s: %s", where, line)
	}
}
