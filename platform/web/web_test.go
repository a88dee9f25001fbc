package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"

	"livemend.dev/livemend/platform"
)

func TestNewWantsAService(t *testing.T) {
	if _, err := New(nil, Options{}); err == nil {
		t.Error("pages without a service were made")
	}
}

// stranger is the real handler with a service that nobody is signed in to: a
// request that reached it without a session would fail.
func stranger(t *testing.T) *httptest.Server {
	t.Helper()
	handler, err := New(new(platform.Service), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return server
}

func ask(t *testing.T, client *http.Client, method, address string, header http.Header, body string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response, string(raw)
}

func TestStrangersAreSentToSignIn(t *testing.T) {
	server := stranger(t)
	for path, want := range map[string]string{
		"/":                      "/sign-in",
		"/servers":               "/sign-in?next=%2Fservers",
		"/servers?q=web&state=x": "/sign-in?next=%2Fservers%3Fq%3Dweb%26state%3Dx",
		"/jobs/1/stream":         "/sign-in?next=%2Fjobs%2F1%2Fstream",
		"/nowhere":               "/sign-in?next=%2Fnowhere",
	} {
		response, _ := ask(t, server.Client(), "GET", server.URL+path, nil, "")
		if got := response.Header.Get("Location"); response.StatusCode != http.StatusSeeOther || got != want {
			t.Errorf("GET %s: %d to %q, want a redirect to %q", path, response.StatusCode, got, want)
		}
	}
	response, _ := ask(t, server.Client(), "POST", server.URL+"/livepatch", nil, "")
	if got := response.Header.Get("Location"); got != "/sign-in" {
		t.Errorf("a form of a stranger leads to %q", got)
	}
	// A piece of a page is asked for by a script: it must be led there as a whole.
	response, _ = ask(t, server.Client(), "GET", server.URL+"/servers", http.Header{"Hx-Request": {"true"}}, "")
	if response.Header.Get("HX-Redirect") != "/sign-in?next=%2Fservers" {
		t.Errorf("a script is not led to the sign-in page: %v", response.Header)
	}
}

func TestEveryAnswerIsProtected(t *testing.T) {
	server := stranger(t)
	for _, path := range []string{"/sign-in", "/assets/app.css", "/nowhere", "/"} {
		response, _ := ask(t, server.Client(), "GET", server.URL+path, nil, "")
		policy := response.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the content security policy lacks %q", path, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the content security policy allows something unsafe: %s", path, policy)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

// TestNothingInline holds what the policy demands: no style or script inside a page.
func TestNothingInline(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:\s+(?:defer|async))*>|javascript:|hx-on|js:`)
	for _, x := range samples() {
		var out strings.Builder
		files, err := newAssets(embedded)
		if err != nil {
			t.Fatal(err)
		}
		if err := framed(page{assets: files, title: x.title}, x.body).Render(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if found := inline.FindString(out.String()); found != "" {
			t.Errorf("%s holds %q", x.name, found)
		}
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	server := stranger(t)
	response, body := ask(t, server.Client(), "POST", server.URL+"/sign-out", http.Header{"Origin": {"https://elsewhere.example"}, "Sec-Fetch-Site": {"cross-site"}}, "")
	if response.StatusCode != http.StatusForbidden || !strings.Contains(body, "another site") || !strings.Contains(body, "Nothing was changed") {
		t.Errorf("a form of another site: %d %s", response.StatusCode, body)
	}
	response, _ = ask(t, server.Client(), "POST", server.URL+"/sign-out", http.Header{"Origin": {server.URL}, "Sec-Fetch-Site": {"same-origin"}}, "")
	if response.StatusCode != http.StatusSeeOther {
		t.Errorf("our own form: %d", response.StatusCode)
	}
}

func TestAssets(t *testing.T) {
	server := stranger(t)
	_, body := ask(t, server.Client(), "GET", server.URL+"/sign-in", nil, "")
	link := regexp.MustCompile(`href="(/assets/app\.css\?v=[0-9a-f]+)"`).FindStringSubmatch(body)
	if link == nil {
		t.Fatalf("the page names no style: %s", body)
	}
	response, css := ask(t, server.Client(), "GET", server.URL+link[1], nil, "")
	if response.StatusCode != http.StatusOK || !strings.Contains(response.Header.Get("Cache-Control"), "immutable") || !strings.Contains(css, "--accent") {
		t.Errorf("the style by its full address: %d %v", response.StatusCode, response.Header)
	}
	response, _ = ask(t, server.Client(), "GET", server.URL+"/assets/app.css?v=old", nil, "")
	if strings.Contains(response.Header.Get("Cache-Control"), "immutable") {
		t.Error("an old address may be kept for good")
	}
	for _, path := range []string{"/assets/", "/assets/none.js", "/assets/../web.go", "/assets/vendor/htmx.LICENSE"} {
		if response, _ := ask(t, server.Client(), "GET", server.URL+path, nil, ""); response.StatusCode == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
}

// TestPagesWithoutVendoredAssets: a build without npm still has whole pages.
func TestPagesWithoutVendoredAssets(t *testing.T) {
	files, err := newAssets(fstest.MapFS{"assets/app.css": {Data: []byte("a{}")}, "assets/app.js": {Data: []byte("1")}, "assets/mark.svg": {Data: []byte("<svg/>")}})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := framed(page{assets: files, title: "x"}, samples()[0].body).Render(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "vendor") || strings.Contains(out.String(), `src=""`) {
		t.Error("the page names scripts that this build does not hold")
	}
}

func TestLocal(t *testing.T) {
	for _, away := range []string{"", "https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)", "servers", "/a\nb", "\\/x", "///x"} {
		if got := local(away); got != "/" {
			t.Errorf("local(%q) = %q", away, got)
		}
	}
	for _, here := range []string{"/", "/servers?q=a%20b", "/jobs/17"} {
		if got := local(here); got != here {
			t.Errorf("local(%q) = %q", here, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		to := local(rapid.String().Draw(t, "to"))
		base, _ := url.Parse("https://here.example/x")
		there, err := base.Parse(to)
		if err != nil || there.Host != "here.example" || there.Scheme != "https" {
			t.Fatalf("leads to %q", to)
		}
	})
}

func TestFlash(t *testing.T) {
	s := &site{log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	s.say(w, "good", `Done: "ä" <b> ;`)
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range w.Result().Cookies() {
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("cookie %s is open", c.Name)
		}
		r.AddCookie(c)
	}
	w = httptest.NewRecorder()
	if f := s.said(w, r); f == nil || f.Text != `Done: "ä" <b> ;` || f.Kind != "good" {
		t.Errorf("said %+v", f)
	}
	if cookies := w.Result().Cookies(); len(cookies) != 1 || cookies[0].MaxAge >= 0 {
		t.Error("the message is not taken away after it was shown")
	}
	r = httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: flashCookie, Value: "nonsense"})
	if f := s.said(httptest.NewRecorder(), r); f != nil {
		t.Errorf("nonsense became %+v", f)
	}
}

func TestRelative(t *testing.T) {
	now := sampleNow
	for _, x := range []struct {
		t    time.Time
		want string
	}{
		{now, "just now"}, {now.Add(-4 * time.Second), "just now"}, {now.Add(-59 * time.Second), "59 s ago"}, {now.Add(-119 * time.Second), "1 min ago"},
		{now.Add(-47 * time.Hour), "47 h ago"}, {now.Add(-48 * time.Hour), "2 days ago"}, {now.Add(time.Hour), "in 1 h"},
	} {
		if got := relative(now, x.t); got != x.want {
			t.Errorf("%v: %q, want %q", now.Sub(x.t), got, x.want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 20417: "20,417", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q", n, got)
		}
	}
}

// TestLayBar: the parts of a bar fill it exactly, touch and can all be seen.
func TestLayBar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []part
		total := 0
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 1<<40), 0, 7).Draw(t, "counts") {
			parts = append(parts, part{count: n, hue: "green", word: "x"})
			total += n
		}
		laid := layBar(parts)
		if (total == 0) != (len(laid) == 0) {
			t.Fatalf("%d pieces for %d", len(laid), total)
		}
		at := 0
		for _, s := range laid {
			if s.from != at || s.width < 1 {
				t.Fatalf("piece %+v at %d", s, at)
			}
			at += s.width
		}
		if total > 0 && at != barWidth {
			t.Fatalf("the pieces end at %d", at)
		}
	})
}

func TestListingAddress(t *testing.T) {
	l := listing{path: "/servers", values: url.Values{"q": {"web 1"}, "state": {"vulnerable"}}}
	for _, x := range []struct{ got, want string }{
		{l.with("state", ""), "/servers?q=web+1"},
		{l.with("state", "unknown"), "/servers?q=web+1&state=unknown"},
		{l.after("k/1"), "/servers?after=k%2F1&q=web+1&state=vulnerable"},
		{listing{path: "/servers"}.with("q", ""), "/servers"},
	} {
		if x.got != x.want {
			t.Errorf("%q, want %q", x.got, x.want)
		}
	}
}

func TestEveryIconIsDrawn(t *testing.T) {
	for _, x := range samples() {
		var out strings.Builder
		if err := x.body.Render(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), `<path d=""`) {
			t.Errorf("%s has an icon without a drawing", x.name)
		}
	}
}
