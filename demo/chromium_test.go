package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a headless Chromium that looks at the platform's pages, and what
// its console said.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string // of the platform
	dir  string // for pictures

	mu   sync.Mutex
	said []string
}

// newBrowser starts Chromium, or skips the test where there is none.
func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed; make test installs it")
	}
	dir := os.Getenv("LIVEMEND_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(time.Minute))
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
	b := &browser{t: t, ctx: ctx, base: base, dir: dir}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(1280, 900))
	return b
}

// listen keeps what the console says; it must not block.
func (b *browser) listen(event any) {
	var line string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		line = e.ExceptionDetails.Text
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			line = fmt.Sprint(e.Args)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			line = e.Entry.Text + " " + e.Entry.URL
		}
	}
	if line != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = append(b.said, line)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// open shows a page.
func (b *browser) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitReady(chromedp.CSS("main")))
}

// write types into a field.
func (b *browser) write(selector, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// press clicks the first button or link below a place that reads so, and waits
// until the page has changed.
func (b *browser) press(place, words string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(() => {
		const all = [...document.querySelectorAll(%s + " button, " + %s + " a")];
		const one = all.find(e => e.innerText.trim() === %s && e.offsetParent !== null);
		if (!one) return false;
		for (const e of document.querySelectorAll("[data-press]")) e.removeAttribute("data-press");
		one.setAttribute("data-press", ""); document.documentElement.setAttribute("data-old", "");
		return true; })()`, quote(place), quote(place), quote(words)))
	b.do(chromedp.Click(chromedp.CSS("[data-press]"), chromedp.NodeVisible))
	b.until(`!document.querySelector("[data-press]") && document.readyState === "complete" && !!document.querySelector("main")`)
}

// until waits for a condition in the page, also over a change of page.
func (b *browser) until(condition string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 45*time.Second)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+condition+")"))
		if err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
			b.t.Fatalf("waited in vain for %s (%v); the page says:\n%s", condition, err, text)
		case <-again.C:
		}
	}
}

// says waits until the page shows a text.
func (b *browser) says(text string) {
	b.t.Helper()
	b.until(`document.body.innerText.includes(` + quote(text) + `)`)
}

// text returns the text of the first element that a selector finds.
func (b *browser) text(selector string) string {
	b.t.Helper()
	b.until(`document.querySelector(` + quote(selector) + `)`)
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector(`+quote(selector)+`).innerText`))
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// photograph keeps a picture of the whole page; the console must have been quiet.
func (b *browser) photograph(name string) {
	b.t.Helper()
	beyond := true
	picture, err := chromedp.Call(b.ctx, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{CaptureBeyondViewport: &beyond})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "demo-"+name+".png"), picture.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.said {
		b.t.Errorf("%s: the console says: %s", name, line)
	}
	b.said = nil
}

// quote writes a Go text as a JavaScript text.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""` // a text always has a JSON form
	}
	return string(b)
}
