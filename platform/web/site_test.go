package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"livemend.dev/livemend/rollout"
)

// addresses are the pages of a filled site.
var addresses = []string{
	"/", "/vulnerabilities", "/vulnerabilities?state=live+patch+available&severity=high", "/vulnerabilities/LIVEMEND-2026-0001", "/livepatch",
	"/servers", "/servers?q=web&online=silent", "/servers/S-7Q4M2K9X-0001", "/servers/S-7Q4M2K9X-0001?tab=applied", "/servers/S-7Q4M2K9X-0001?tab=libraries",
	"/servers/S-7Q4M2K9X-0001?tab=findings", "/servers/S-7Q4M2K9X-0001?tab=facts", "/servers/add",
	"/patches", "/patches?tab=content", "/patches?tab=updates", "/patches/user/" + sampleBuildID + "/level-2.lmp",
	"/jobs", "/scans", "/keys", "/audit", "/settings", "/search?q=echobeat",
}

// TestPages asks for every page as each role, empty and filled.
func TestPages(t *testing.T) {
	s := newStand(t)
	admin := s.person(t, "admin")
	for _, path := range []string{"/", "/vulnerabilities", "/livepatch", "/servers", "/servers/add", "/patches", "/jobs", "/scans", "/keys", "/audit", "/settings", "/search"} {
		if response, body := ask(t, admin, "GET", s.URL+path, nil, ""); response.StatusCode != http.StatusOK {
			t.Errorf("empty %s: %d %s", path, response.StatusCode, body)
		}
	}
	s.fill(t)
	for _, role := range []string{"admin", "operator", "viewer"} {
		client := admin
		if role != "admin" {
			client = s.person(t, role)
		}
		for _, path := range addresses {
			response, body := ask(t, client, "GET", s.URL+path, nil, "")
			want := http.StatusOK
			if path == "/audit" && role != "admin" {
				want = http.StatusForbidden
			}
			if response.StatusCode != want {
				t.Errorf("%s: %s: %d, want %d", role, path, response.StatusCode, want)
			}
			if strings.Contains(body, `href="/audit"`) != (role == "admin") {
				t.Errorf("%s: %s: the way to the audit page is for administrators", role, path)
			}
			if role == "viewer" && strings.Contains(body, "LivePatch found vulnerabilities</button>") {
				t.Errorf("a viewer is offered a button that is not for them on %s", path)
			}
		}
	}
	response, body := ask(t, admin, "GET", s.URL+"/servers", nil, "")
	for _, want := range []string{longName, "S-7Q4M2K9X-0001", "unknown-box", "live patch available"} {
		if !strings.Contains(body, want) {
			t.Errorf("the list of servers (%d) lacks %q", response.StatusCode, want)
		}
	}
}

// TestRefusals: what cannot be done is said in words, and nothing is changed.
func TestRefusals(t *testing.T) {
	s := newStand(t)
	s.fill(t)
	viewer, admin := s.person(t, "viewer"), s.person(t, "admin")
	for _, x := range []struct {
		name, method, path, body string
		client                   *http.Client
		status                   int
		says                     string
	}{
		{"unknown page", "GET", "/nowhere", "", admin, 404, "This is not here"},
		{"unknown server", "GET", "/servers/S-NONE", "", admin, 404, "This is not here"},
		{"unknown job", "GET", "/jobs/4711", "", admin, 404, "This is not here"},
		{"a job that is no number", "GET", "/jobs/x", "", admin, 404, "This is not here"},
		{"unknown vulnerability", "GET", "/vulnerabilities/CVE-0000-0", "", admin, 404, "This is not here"},
		{"viewer live-patches", "POST", "/livepatch", "", viewer, 403, "Your role does not allow this"},
		{"viewer makes a key", "POST", "/keys", "note=x", viewer, 403, "Your role does not allow this"},
		{"viewer scans", "POST", "/scans", "", viewer, 403, "Your role does not allow this"},
	} {
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		response, body := ask(t, x.client, x.method, s.URL+x.path, header, x.body)
		if response.StatusCode != x.status || !strings.Contains(body, x.says) {
			t.Errorf("%s: %d, want %d and %q in %s", x.name, response.StatusCode, x.status, x.says, body)
		}
	}
	// A mistake in a form is said on the page that the form came from.
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Referer": {s.URL + "/keys"}}
	response, _ := ask(t, admin, "POST", s.URL+"/keys", header, "limit=many")
	if response.StatusCode != http.StatusSeeOther || response.Header.Get("Location") != "/keys" {
		t.Fatalf("a wrong number leads to %d %s", response.StatusCode, response.Header.Get("Location"))
	}
	said := http.Header{}
	for _, c := range response.Cookies() {
		said.Add("Cookie", c.Name+"="+c.Value)
	}
	if _, body := ask(t, admin, "GET", s.URL+"/keys", said, ""); !strings.Contains(body, "“many” is not a whole number") {
		t.Error("the page does not say what was wrong with the form")
	}
}

// TestBrokenStore: a failure of the platform's own gets an id for the log and
// no detail for the browser.
func TestBrokenStore(t *testing.T) {
	s := newStand(t)
	admin := s.person(t, "admin")
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	response, body := ask(t, admin, "GET", s.URL+"/servers", nil, "")
	if response.StatusCode != http.StatusInternalServerError || !strings.Contains(body, "Id in the log") || !strings.Contains(body, "not affected") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if strings.Contains(body, "sql") {
		t.Errorf("the page shows internal detail: %s", body)
	}
}

// TestSite walks through the site as a person with a browser would.
func TestSite(t *testing.T) {
	b := newBrowser(t)
	s := newStand(t)
	s.fill(t)
	b.look(t, 1440, 900, false)

	// The first sign-in, on the way to a page: with a one-time password.
	b.open(t, s.URL+"/servers?q=web")
	b.until(t, `location.pathname === "/sign-in"`)
	b.write(t, `input[name="name"]`, "admin")
	b.write(t, `input[name="password"]`, s.first.OneTimePassword)
	b.press(t, `button.primary`)
	b.until(t, `location.pathname === "/password"`)
	b.photograph(t, "site-password")
	b.write(t, `input[name="current"]`, s.first.OneTimePassword)
	b.write(t, `input[name="password"]`, password)
	b.write(t, `input[name="repeat"]`, password+kb.Enter)
	b.until(t, `location.pathname + location.search === "/servers?q=web"`)
	b.until(t, `document.querySelector(".note.good").innerText.includes("new password")`)
	b.quiet(t, "sign in")

	t.Run("keyboard", func(t *testing.T) { keyboard(t, b, s) })
	t.Run("filter", func(t *testing.T) { filter(t, b, s) })
	t.Run("colours", func(t *testing.T) { colours(t, b, s) })
	t.Run("enrolment", func(t *testing.T) { enrolment(t, b, s) })
	t.Run("keys", func(t *testing.T) { keysAndServers(t, b, s) })
	t.Run("job", func(t *testing.T) { liveJob(t, b, s) })
	t.Run("every page", func(t *testing.T) { everyPage(t, b, s) })

	b.look(t, 1440, 900, false)
	b.open(t, s.URL+"/")
	b.press(t, `.person summary`)
	b.press(t, `.person form[action="/sign-out"] button`)
	b.until(t, `location.pathname === "/sign-in"`)
	b.open(t, s.URL+"/servers")
	b.until(t, `location.pathname === "/sign-in"`)
	b.quiet(t, "sign out")
}

// keyboard: the search by its key, every control with a focus to be seen, the
// skip link first.
func keyboard(t *testing.T, b *browser, s *stand) {
	b.open(t, s.URL+"/servers")
	b.run(t, chromedp.KeyEvent(kb.Tab))
	b.until(t, `document.activeElement.classList.contains("skip")`)
	b.run(t, chromedp.KeyEvent("/"))
	b.until(t, `document.activeElement.id === "search"`)
	// The protocol types the character although the page took the key.
	b.run(t, chromedp.Evaluate[chromedp.Void](`document.activeElement.value = ""`), chromedp.KeyEvent("web-01"+kb.Enter))
	b.until(t, `location.pathname === "/search" && document.querySelector(".lines").innerText.includes("web-01")`)
	b.open(t, s.URL+"/servers")
	for range 12 {
		b.run(t, chromedp.KeyEvent(kb.Tab))
		if !value[bool](t, b, `getComputedStyle(document.activeElement).outlineStyle !== "none" && parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2`) {
			t.Errorf("the focus cannot be seen on %s", value[string](t, b, `document.activeElement.outerHTML.slice(0, 120)`))
		}
	}
	b.quiet(t, "keyboard")
}

// filter: typing exchanges the rows only, and the address tells the filter.
func filter(t *testing.T, b *browser, s *stand) {
	b.open(t, s.URL+"/servers")
	b.run(t, chromedp.Evaluate[chromedp.Void](`document.querySelector("#filter").marked = true`))
	b.write(t, `#filter`, "db-primary")
	b.until(t, `document.querySelectorAll("#rows tbody tr").length === 1`)
	b.until(t, `location.search === "?q=db-primary"`)
	if !value[bool](t, b, `document.querySelector("#filter").marked === true && document.activeElement.id === "filter"`) {
		t.Error("the filter lost its place while the rows were exchanged")
	}
	b.quiet(t, "filter")
	// Without scripts the same form is a plain one.
	b.open(t, s.URL+"/servers?q=nothing-like-that")
	b.until(t, `document.querySelector("#rows").innerText.includes("No server fits these filters")`)
	b.open(t, s.URL+"/vulnerabilities")
	b.until(t, `document.querySelector("button[data-needs-pick]").disabled`)
	b.press(t, `input[name="pick"][value="LIVEMEND-2026-0001"]`)
	b.until(t, `document.querySelector("[data-picked]").textContent === "1" && !document.querySelector("button[data-needs-pick]").disabled`)
	b.press(t, `button[data-needs-pick]`)
	b.until(t, `location.pathname === "/livepatch" && location.search.includes("LIVEMEND-2026-0001")`)
	b.photograph(t, "site-plan")
	b.quiet(t, "picking")
}

// colours: the switch works at once and stays.
func colours(t *testing.T, b *browser, s *stand) {
	background := `getComputedStyle(document.documentElement).backgroundColor`
	b.open(t, s.URL+"/")
	light := value[string](t, b, background)
	b.look(t, 1440, 900, true)
	b.until(t, background+` !== "`+light+`"`)
	b.press(t, `.person summary`)
	b.press(t, `.segmented button[value="light"]`)
	b.until(t, background+` === "`+light+`"`)
	b.until(t, `fetch("/").then(r => r.text()).then(x => x.includes('data-theme="light"'))`)
	b.open(t, s.URL+"/servers")
	b.until(t, `document.documentElement.dataset.theme === "light" && `+background+` === "`+light+`"`)
	b.press(t, `.person summary`)
	b.press(t, `.segmented button[value=""]`)
	b.until(t, background+` !== "`+light+`"`)
	b.run(t, chromedp.KeyEvent(kb.Escape))
	b.until(t, `!document.querySelector(".person").open`)
	b.look(t, 1440, 900, false)
	b.quiet(t, "colours")
}

// enrolment: one machine is approved, one refused.
func enrolment(t *testing.T, b *browser, s *stand) {
	b.open(t, s.URL+"/servers")
	b.press(t, `button[aria-label="Refuse unknown-box"]`)
	b.until(t, `document.querySelector(".note.good")?.innerText.includes("unknown-box is refused")`)
	b.press(t, `button[aria-label="Approve wanted-box"]`)
	b.until(t, `document.querySelector(".note.good")?.innerText.includes("wanted-box is approved")`)
	b.until(t, `!document.querySelector("#waiting")`)
	b.quiet(t, "enrolment")
}

// keysAndServers: the whitepaper's buttons of part 1.
func keysAndServers(t *testing.T, b *browser, s *stand) {
	b.open(t, s.URL+"/keys")
	b.write(t, `input[name="note"]`, "web farm")
	b.press(t, `form[action="/keys"] button`)
	b.until(t, `document.querySelector("#key-text")?.textContent.length > 20`)
	key := value[string](t, b, `document.querySelector("#key-text").textContent`)
	b.photograph(t, "site-key")
	b.press(t, `#created-key form button`)
	b.until(t, `document.querySelector("#install-command")?.textContent.includes("LIVEMEND_KEY=")`)
	if !strings.Contains(value[string](t, b, `document.querySelector("#install-command").textContent`), key) {
		t.Error("the install command does not carry the key")
	}
	b.open(t, s.URL+"/keys")
	if value[bool](t, b, `document.body.innerText.includes("`+key+`")`) {
		t.Error("the key is shown a second time")
	}
	b.open(t, s.URL+"/servers/add")
	b.write(t, `input[name="note"]`, "the new build host")
	b.press(t, `form:has(input[value="customer"]) button`)
	b.until(t, `document.querySelector("#install-command")?.textContent.includes("LIVEMEND_TOKEN=")`)
	if customer := value[string](t, b, `document.querySelector("#customer-id").textContent`); customer != s.first.Organisation.CustomerID {
		t.Errorf("the page shows Customer ID %q", customer)
	}
	b.fits(t, "install")
	b.photograph(t, "site-install")
	b.quiet(t, "keys")
}

// liveJob: the job's page follows the job by itself, and the emergency stop.
func liveJob(t *testing.T, b *browser, s *stand) {
	b.open(t, s.URL+"/vulnerabilities")
	b.press(t, `#livepatch button`)
	b.until(t, `location.pathname.startsWith("/jobs/")`)
	b.until(t, `document.querySelector("[data-live]").dataset.live === "on"`)
	b.photograph(t, "site-job-running")
	b.press(t, `.top details.confirm summary`)
	b.photograph(t, "site-emergency-stop")
	b.press(t, `form[action="/jobs/stop"] button`)
	b.until(t, `location.pathname === "/jobs" && document.querySelector(".note.good").innerText.includes("1 job is being stopped")`)

	b.open(t, s.URL+"/vulnerabilities")
	b.press(t, `#livepatch button`)
	b.until(t, `document.querySelector("[data-live]")?.dataset.live === "on"`)
	b.run(t, chromedp.Evaluate[chromedp.Void](`window.sameDocument = true`))
	s.run(t) // the runner's first security check fails: the repository was never refreshed
	b.until(t, `document.querySelector("h1 .state").innerText.trim() !== "running"`)
	b.until(t, `document.querySelector(".checks .failed")`)
	b.until(t, `parseInt(document.querySelector("#now").innerText) < 2`) // the bar above follows too
	if !value[bool](t, b, `window.sameDocument === true`) {
		t.Error("the page was loaded anew instead of being kept up to date")
	}
	b.fits(t, "job")
	b.photograph(t, "site-job-ended")
	b.quiet(t, "job")
}

// everyPage: wide and narrow, light and dark.
func everyPage(t *testing.T, b *browser, s *stand) {
	for _, narrow := range []bool{false, true} {
		if narrow {
			b.look(t, 375, 800, true)
		}
		for _, path := range append(addresses, "/jobs/1", "/jobs/2") {
			b.open(t, s.URL+path)
			if value[bool](t, b, `!!document.querySelector("[data-live][hx-sse\\:connect]")`) {
				b.until(t, `document.querySelector("[data-live]").dataset.live === "on"`)
			}
			b.fits(t, path)
			b.quiet(t, path)
		}
	}
	// The rail is a sheet here.
	b.open(t, s.URL+"/")
	b.press(t, `.menu-button`)
	b.until(t, `document.querySelector("#rail").matches(":popover-open")`)
	b.photograph(t, "site-menu-narrow")
	b.press(t, `#rail a[href="/keys"]`)
	b.until(t, `location.pathname === "/keys"`)
	b.quiet(t, "menu")
}

// TestStreamEnds: a stream of a job that is over sends the page and ends.
func TestStreamEnds(t *testing.T) {
	s := newStand(t)
	s.fill(t)
	admin := s.person(t, "admin")
	response, _ := ask(t, admin, "POST", s.URL+"/livepatch", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "")
	where := response.Header.Get("Location")
	if !strings.HasPrefix(where, "/jobs/") {
		t.Fatalf("the job's page is %q", where)
	}
	ended := make(chan string, 1)
	go func() {
		response, body := ask(t, admin, "GET", s.URL+where+"/stream", nil, "")
		ended <- response.Header.Get("Content-Type") + "\n" + body
	}()
	response, body := ask(t, admin, "POST", s.URL+where+"/stop", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "")
	if response.StatusCode != http.StatusSeeOther {
		t.Fatalf("stop: %d %s", response.StatusCode, body)
	}
	s.run(t) // the task that was being checked ends, and the job with it
	select {
	case got := <-ended:
		for _, want := range []string{"text/event-stream", "\nid: ", "\ndata: ", "event: ended\ndata: "} {
			if !strings.Contains(got, want) {
				t.Errorf("the stream lacks %q: %s", want, got)
			}
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the stream did not end with the job")
	}
}

// TestStopping: a job that a person stopped says so while its tasks still end.
func TestStopping(t *testing.T) {
	for want, job := range map[string]rollout.Job{
		"running":  {State: rollout.JobRunning},
		"stopping": {State: rollout.JobRunning, Halted: true},
		"stopped":  {State: rollout.JobStopped, Halted: true},
	} {
		if got := jobMood(job).word; got != want {
			t.Errorf("%+v is shown as %s, want %s", job, got, want)
		}
	}
}
