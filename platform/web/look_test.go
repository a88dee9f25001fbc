package web

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// sampleSite serves the sample pages as the real site would, with its headers.
func sampleSite(t *testing.T) *httptest.Server {
	t.Helper()
	files, err := newAssets(embedded)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{assets: files, log: slog.New(slog.DiscardHandler), now: func() time.Time { return sampleNow }}
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", files)
	mux.HandleFunc("POST /theme", s.setTheme)
	for _, x := range samples() {
		mux.HandleFunc("GET /"+x.name, func(w http.ResponseWriter, r *http.Request) {
			p := page{assets: files, title: x.title, section: x.section, org: "Example Customer", person: "admin", role: "admin",
				theme: theme(r), path: r.URL.Path, running: 1, pending: 1, operate: true}
			s.render(w, r, http.StatusOK, framed(p, x.body))
		})
	}
	mux.HandleFunc("GET /jobs/18/stream", func(w http.ResponseWriter, r *http.Request) {
		message, err := jobMessage(r.Context(), jobView{JobDetail: sampleJobDetail(), now: sampleNow, operate: true}, 1)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		if err := send(w, http.NewResponseController(w), message); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) {
		s.render(w, r, http.StatusOK, signInPage(files, theme(r), signInForm{Problem: "The name or the password is wrong. Check both and try again.", Name: "admin"}))
	})
	mux.HandleFunc("GET /password", func(w http.ResponseWriter, r *http.Request) {
		s.render(w, r, http.StatusOK, passwordPage(files, theme(r), passwordForm{Name: "admin", Must: true}))
	})
	server := httptest.NewServer(s.headers(mux))
	t.Cleanup(server.Close)
	return server
}

// TestLook opens every page with data that strains it, wide, narrow and zoomed,
// light and dark: nothing on the console, nothing wider than the window, every
// word with contrast, every control with a name.
func TestLook(t *testing.T) {
	b := newBrowser(t)
	server := sampleSite(t)
	keep := os.Getenv("LIVEMEND_SCREENSHOTS") != "" // over a hundred pictures: only for somebody who looks at them
	names := []string{"sign-in", "password"}
	for _, x := range samples() {
		names = append(names, x.name)
	}
	for _, size := range []struct {
		name          string
		width, height int64
		dark          bool
	}{{"wide", 1440, 900, false}, {"dark", 1440, 900, true}, {"narrow", 375, 800, false}, {"zoomed", 720, 450, true}} {
		b.look(t, size.width, size.height, size.dark)
		for _, name := range names {
			where := name + " " + size.name
			b.open(t, server.URL+"/"+name)
			b.fits(t, where)
			b.quiet(t, where)
			if size.name == "wide" || size.name == "dark" {
				b.accessible(t, where)
			}
			if keep {
				b.photograph(t, name+"-"+size.name)
			}
		}
	}
}
