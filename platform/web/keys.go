package web

import (
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// keysView is the page of registration keys.
type keysView struct {
	keys    []fleet.Key
	created *platform.CreatedKey // shown this once
	now     time.Time
	operate bool
	admin   bool
}

// keyName is a key in a list: its note, or its id when it has none.
func keyName(k fleet.Key) string {
	if k.Note == "" {
		return k.ID
	}
	return k.Note + " (" + shorten(k.ID, 20) + ")"
}

func keyMood(k fleet.Key, now time.Time) mood {
	switch {
	case !k.Enabled:
		return mood{"grey", "dash", "disabled", "It enrols no server"}
	case !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(now):
		return mood{"grey", "clock", "expired", "It enrols no server"}
	case k.ServerLimit > 0 && k.Servers >= k.ServerLimit:
		return mood{"amber", "stop", "limit reached", "It enrols no further server"}
	}
	return mood{"green", "check", "enabled", "It enrols servers"}
}

func (s *site) keyList(v *visit, created *platform.CreatedKey) error {
	keys, err := s.svc.Keys(v.context(), v.who)
	if err != nil {
		return err
	}
	return s.show(v, "Keys", "/keys", keysPage(keysView{
		keys: keys, created: created, now: s.now(), operate: v.can(access.Operator), admin: v.can(access.Admin),
	}))
}

func (s *site) keys(v *visit) error { return s.keyList(v, nil) }

// createKey answers with the key itself, not with a way to it: it is shown this
// once.
func (s *site) createKey(v *visit) error {
	limit, err := number(v, "limit")
	if err != nil {
		return err
	}
	created, err := s.svc.CreateKey(v.context(), v.who, platform.NewKey{Note: v.text("note"), ServerLimit: limit})
	if err != nil {
		return err
	}
	return s.keyList(v, &created)
}

// activate is "Activate LivePatching": the install command with a key.
func (s *site) activate(v *visit) error {
	install, err := s.svc.ActivateLivePatching(v.context(), v.who, v.text("key"))
	if err != nil {
		return err
	}
	return s.show(v, "Activate LivePatching", "/keys", installPage(install, s.now()))
}

func (s *site) changeKey(v *visit) error {
	id := v.r.PathValue("id")
	var err error
	var done string
	switch v.text("do") {
	case "enable":
		err, done = s.svc.SetKeyEnabled(v.context(), v.who, id, true), "is enabled: it enrols servers again."
	case "disable":
		err, done = s.svc.SetKeyEnabled(v.context(), v.who, id, false), "is disabled: it enrols no further server. Enrolled servers stay."
	case "delete":
		err, done = s.svc.DeleteKey(v.context(), v.who, id), "is deleted, here and at the portal. Enrolled servers stay."
	default:
		err = platform.ErrInput
	}
	if err != nil {
		return err
	}
	s.say(v.w, "good", "Key "+id+" "+done)
	s.sendTo(v, "/keys")
	return nil
}
