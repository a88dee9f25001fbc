package web

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
)

// Cookies beside the session's. Neither holds a secret.
const (
	themeCookie = "livemend_theme"
	flashCookie = "livemend_flash"
)

// maxFlash bounds the text that a form leaves for the next page.
const maxFlash = 1500

func (s *site) setCookie(w http.ResponseWriter, name, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: seconds,
		HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode,
	})
}

// theme is the colours that the person chose; "" = the system's.
func theme(r *http.Request) string {
	cookie, err := r.Cookie(themeCookie)
	if err != nil || (cookie.Value != "light" && cookie.Value != "dark") {
		return ""
	}
	return cookie.Value
}

func (s *site) setTheme(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	switch value := r.FormValue("theme"); value {
	case "light", "dark":
		s.setCookie(w, themeCookie, value, 365*24*3600)
	default:
		s.setCookie(w, themeCookie, "", -1)
	}
	http.Redirect(w, r, local(r.FormValue("back")), http.StatusSeeOther)
}

// local returns to when it is a page of this site, and the first page otherwise.
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") {
		return "/"
	}
	return to
}

// say leaves a message for the next page that the browser shows.
func (s *site) say(w http.ResponseWriter, kind, text string) {
	raw, err := json.Marshal(flash{Kind: kind, Text: shorten(text, maxFlash)})
	if err != nil { // two strings always encode
		s.log.Error("encode a message for the next page", "err", err)
		return
	}
	s.setCookie(w, flashCookie, base64.RawURLEncoding.EncodeToString(raw), 60)
}

// said takes the message that the page before left, if there is one.
func (s *site) said(w http.ResponseWriter, r *http.Request) *flash {
	cookie, err := r.Cookie(flashCookie)
	if err != nil {
		return nil
	}
	s.setCookie(w, flashCookie, "", -1)
	raw, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return nil
	}
	var f flash
	if json.Unmarshal(raw, &f) != nil || (f.Kind != "good" && f.Kind != "warn" && f.Kind != "bad") {
		return nil
	}
	return &f
}

// signInAddress is the sign-in page that leads back to where r wanted to go.
func signInAddress(r *http.Request) string {
	if r.Method != http.MethodGet || r.URL.Path == "/" {
		return "/sign-in"
	}
	return address("/sign-in", "next", r.URL.RequestURI())
}

func (s *site) signInPage(w http.ResponseWriter, r *http.Request) {
	s.render(w, r, http.StatusOK, signInPage(s.assets, theme(r), signInForm{Next: local(r.FormValue("next"))}))
}

func (s *site) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	form := signInForm{Name: r.PostFormValue("name"), Next: local(r.PostFormValue("next"))}
	session, who, err := s.svc.SignIn(r.Context(), form.Name, r.PostFormValue("password"), remote(r))
	switch {
	case errors.Is(err, access.ErrCredentials):
		form.Problem = "The name or the password is wrong. Check both and try again."
		s.render(w, r, http.StatusUnauthorized, signInPage(s.assets, theme(r), form))
		return
	case errors.Is(err, access.ErrLocked):
		form.Problem = "There were too many wrong attempts. Wait a few minutes, then try again."
		s.render(w, r, http.StatusTooManyRequests, signInPage(s.assets, theme(r), form))
		return
	case err != nil:
		s.fail(&visit{w: w, r: r}, err)
		return
	}
	s.setSession(w, session)
	to := form.Next
	if who.MustChange {
		to = address("/password", "next", form.Next)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s *site) setSession(w http.ResponseWriter, session platform.Session) {
	s.setCookie(w, platform.SessionCookie, session.Secret, int(session.ExpiresAt.Sub(s.now()).Seconds()))
}

// remote is the address that a request came from, without the port.
func remote(r *http.Request) string {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return at.Addr().String()
	}
	return r.RemoteAddr
}

func (s *site) signOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(platform.SessionCookie); err == nil {
		if err := s.svc.SignOut(r.Context(), cookie.Value); err != nil {
			s.fail(&visit{w: w, r: r}, err)
			return
		}
	}
	s.setCookie(w, platform.SessionCookie, "", -1)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// owner is the signed-in person, who may still have to set a password.
func (s *site) owner(w http.ResponseWriter, r *http.Request) (who access.Subject, secret string, ok bool) {
	cookie, err := r.Cookie(platform.SessionCookie)
	if err != nil {
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return access.Subject{}, "", false
	}
	who, err = s.svc.Session(r.Context(), cookie.Value)
	switch {
	case errors.Is(err, access.ErrCredentials):
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return who, "", false
	case err != nil:
		s.fail(&visit{w: w, r: r}, err)
		return who, "", false
	}
	return who, cookie.Value, true
}

func (s *site) passwordPage(w http.ResponseWriter, r *http.Request) {
	who, _, ok := s.owner(w, r)
	if !ok {
		return
	}
	form := passwordForm{Name: who.Name, Must: who.MustChange, Next: local(r.FormValue("next"))}
	s.render(w, r, http.StatusOK, passwordPage(s.assets, theme(r), form))
}

func (s *site) changePassword(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	who, secret, ok := s.owner(w, r)
	if !ok {
		return
	}
	form := passwordForm{Name: who.Name, Must: who.MustChange, Next: local(r.PostFormValue("next"))}
	current, wanted := r.PostFormValue("current"), r.PostFormValue("password")
	err := errRepeat
	if wanted == r.PostFormValue("repeat") {
		err = s.svc.ChangePassword(r.Context(), who, secret, current, wanted)
	}
	switch {
	case err == nil:
		s.say(w, "good", "Your new password is set. Your other sessions are signed out.")
		http.Redirect(w, r, form.Next, http.StatusSeeOther)
		return
	case errors.Is(err, errRepeat):
		form.Problem = "The two new passwords differ. Type the same one twice."
	case errors.Is(err, access.ErrCredentials):
		form.Problem = "The present password is wrong. Nothing was changed."
	case errors.Is(err, access.ErrLocked):
		form.Problem = "There were too many wrong attempts. Nothing was changed. Wait a few minutes, then try again."
	case errors.Is(err, access.ErrWeak):
		form.Problem = "The new password needs 12 to 200 characters. Nothing was changed."
	case errors.Is(err, platform.ErrInput), errors.Is(err, platform.ErrConflict):
		form.Problem = err.Error()
	default:
		s.fail(&visit{w: w, r: r, who: who}, err)
		return
	}
	s.render(w, r, http.StatusUnprocessableEntity, passwordPage(s.assets, theme(r), form))
}

var errRepeat = errors.New("the two new passwords differ")
