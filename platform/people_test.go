package platform_test

import (
	"errors"
	"testing"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/wire"
)

func TestTenants(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := platformtest.Start(t, dsn, nil)
		other := p.Organisation("Other Ltd")
		svc, ctx := p.Service, t.Context()
		m := enrolled(t, p, p.Admin, "web-01")
		importReport(t, p, p.Admin, m)
		path := p.PublishPatch(1)
		must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, p.Admin))
		key := must[[]fleet.Key](t)(svc.Keys(ctx, p.Admin))[0]
		job := must[fleet.Job](t)(svc.LivePatchFound(ctx, p.Admin, platform.PatchRequest{}))
		m.Apply(m.Work())
		p.WaitJob(p.Admin, job.ID)
		if err := p.Machine("bare").Enrol(p.First.Organisation.CustomerID); code(err) != wire.CodePending {
			t.Fatal(err)
		}
		request := must[[]fleet.EnrolmentRequest](t)(svc.Enrolments(ctx, p.Admin, ""))[0]
		user := must[platform.CreatedUser](t)(svc.CreateUser(ctx, p.Admin, platform.NewUser{Name: "eve", Role: "viewer"}))
		token := must[platform.CreatedAPIToken](t)(svc.CreateAPIToken(ctx, p.Admin, platform.NewAPIToken{Name: "ci", Role: "viewer"}))

		for what, try := range map[string]func() error{
			"server":        func() error { _, err := svc.Server(ctx, other, m.SystemID); return err },
			"remove server": func() error { return svc.RemoveServer(ctx, other, m.SystemID) },
			"import scan": func() error {
				_, err := svc.ImportScan(ctx, other, m.SystemID, report(t, "oscap_before.xml"))
				return err
			},
			"scan": func() error {
				_, err := svc.LivePatchFound(ctx, other, platform.PatchRequest{Servers: []string{m.SystemID}})
				return err
			},
			"revert": func() error {
				_, err := svc.CreateRevertJob(ctx, other, platform.RevertRequest{Path: path, Servers: []string{m.SystemID}})
				return err
			},
			"job":        func() error { _, err := svc.Job(ctx, other, job.ID); return err },
			"stop job":   func() error { return svc.StopJob(ctx, other, job.ID) },
			"key":        func() error { return svc.SetKeyEnabled(ctx, other, key.ID, false) },
			"delete key": func() error { return svc.DeleteKey(ctx, other, key.ID) },
			"activate":   func() error { _, err := svc.ActivateLivePatching(ctx, other, key.ID); return err },
			"enrolment":  func() error { _, err := svc.DecideEnrolment(ctx, other, request.ID, true); return err },
			"user":       func() error { return svc.SetUserDisabled(ctx, other, user.ID, true) },
			"password":   func() error { _, err := svc.ResetPassword(ctx, other, user.ID); return err },
			"API token":  func() error { return svc.DeleteAPIToken(ctx, other, token.ID) },
		} {
			if err := try(); !errors.Is(err, platform.ErrNotFound) {
				t.Errorf("%s of another organisation: %v", what, err)
			}
		}
		empty := func(what string, n int, err error) {
			t.Helper()
			if err != nil || n != 0 {
				t.Errorf("%s: another organisation sees %d, %v", what, n, err)
			}
		}
		servers, err := svc.Servers(ctx, other, platform.ServerFilter{})
		empty("servers", len(servers.Items)+int(servers.Total), err)
		rows, err := svc.Coverage(ctx, other, platform.CoverageFilter{Server: m.SystemID})
		empty("coverage", len(rows.Items)+int(rows.Total), err)
		vulnerabilities, err := svc.Vulnerabilities(ctx, other, platform.CoverageFilter{})
		empty("vulnerabilities", len(vulnerabilities.Items), err)
		jobs, err := svc.Jobs(ctx, other, platform.JobFilter{})
		empty("jobs", len(jobs.Items)+int(jobs.Total), err)
		keys, err := svc.Keys(ctx, other)
		empty("keys", len(keys), err)
		requests, err := svc.Enrolments(ctx, other, "")
		empty("enrolments", len(requests), err)
		events, err := svc.Events(ctx, other, 0, platform.EventFilter{Server: m.SystemID})
		empty("events", len(events), err)
		overview, err := svc.Overview(ctx, other)
		empty("overview", int(overview.Servers+overview.Pending)+len(overview.RecentJobs)+len(overview.States), err)
	})
}

func TestSignIn(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	svc, ctx := p.Service, t.Context()
	user := must[platform.CreatedUser](t)(svc.CreateUser(ctx, p.Admin, platform.NewUser{Name: "Olga", Role: "operator"}))
	session, who, err := svc.SignIn(ctx, "olga", user.OneTimePassword, "here")
	if err != nil || !who.MustChange {
		t.Fatalf("%+v, %v", who, err)
	}
	if _, err := svc.Overview(ctx, who); !errors.Is(err, access.ErrChangePassword) {
		t.Errorf("with a one-time password: %v", err)
	}
	if err := svc.ChangePassword(ctx, who, "", user.OneTimePassword, "short"); !errors.Is(err, access.ErrWeak) {
		t.Errorf("a short password: %v", err)
	}
	elsewhere, _, err := svc.SignIn(ctx, "olga", user.OneTimePassword, "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.ChangePassword(ctx, who, session.Secret, user.OneTimePassword, "a longer password"); err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Session(ctx, elsewhere.Secret); !errors.Is(err, access.ErrCredentials) {
		t.Errorf("another session from before the change: %v", err)
	}
	if own, err := svc.Session(ctx, session.Secret); err != nil || own.MustChange {
		t.Errorf("the session that changed it: %+v, %v", own, err)
	}
	session, who, err = svc.SignIn(ctx, "OLGA ", "a longer password", "here")
	if err != nil || who.MustChange {
		t.Fatalf("%+v, %v", who, err)
	}
	if got, err := svc.Session(ctx, session.Secret); err != nil || got != who {
		t.Errorf("session of %+v, %v", got, err)
	}
	if _, err := svc.CreateKey(ctx, who, platform.NewKey{}); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("an operator makes a key: %v", err)
	}
	if err := svc.SignOut(ctx, session.Secret); err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Session(ctx, session.Secret); !errors.Is(err, access.ErrCredentials) {
		t.Errorf("after signing out: %v", err)
	}
	for range access.FreeAttempts {
		if _, _, err := svc.SignIn(ctx, "olga", "wrong", "there"); !errors.Is(err, access.ErrCredentials) {
			t.Fatalf("wrong password: %v", err)
		}
	}
	if _, _, err := svc.SignIn(ctx, "olga", "a longer password", "there"); !errors.Is(err, access.ErrLocked) {
		t.Errorf("after too many wrong attempts: %v", err)
	}
	if _, _, err := svc.SignIn(ctx, "olga", "a longer password", "here"); err != nil {
		t.Errorf("from where nobody guessed: %v", err)
	}
	p.Advance(time.Hour)
	if _, _, err := svc.SignIn(ctx, "olga", "a longer password", "there"); err != nil {
		t.Errorf("an hour later: %v", err)
	}
	reset := must[platform.CreatedUser](t)(svc.ResetPassword(ctx, p.Admin, user.ID))
	if _, _, err := svc.SignIn(ctx, "olga", "a longer password", "there"); !errors.Is(err, access.ErrCredentials) {
		t.Errorf("the password from before the reset: %v", err)
	}
	if _, who, err := svc.SignIn(ctx, "olga", reset.OneTimePassword, "there"); err != nil || !who.MustChange {
		t.Errorf("the new one-time password: %+v, %v", who, err)
	}
	token := must[platform.CreatedAPIToken](t)(svc.CreateAPIToken(ctx, p.Admin, platform.NewAPIToken{Name: "ci", Role: "operator"}))
	if got, err := svc.Bearer(ctx, token.Text); err != nil || got.Role != access.Operator || got.Organisation != p.Admin.Organisation {
		t.Errorf("token of %+v, %v", got, err)
	}
	if err := svc.DeleteAPIToken(ctx, p.Admin, token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Bearer(ctx, token.Text); !errors.Is(err, access.ErrCredentials) {
		t.Errorf("a revoked token: %v", err)
	}
	if page, err := svc.Audit(ctx, p.Admin, platform.List{Limit: 3}); err != nil || len(page.Items) != 3 || page.Next == "" || page.Items[0].ID <= page.Items[1].ID {
		t.Errorf("audit %+v, %v", page, err)
	}
}

// TestGuessingAtOnce: guesses that come at the same moment are counted like
// those that come one after the other, at sign-in and in a stolen session.
func TestGuessingAtOnce(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	const guesses, atATime = 24, 4
	for what, guess := range map[string]func() error{
		"sign-in": func() error { _, _, err := p.Service.SignIn(t.Context(), "admin", "wrong", "there"); return err },
		"session": func() error { return p.Service.ChangePassword(t.Context(), p.Admin, "", "wrong", "a longer password") },
	} {
		answers := make(chan error, guesses)
		for range guesses {
			go func() { answers <- guess() }()
		}
		checked := 0
		for range guesses {
			switch err := <-answers; {
			case errors.Is(err, access.ErrCredentials):
				checked++
			case !errors.Is(err, access.ErrLocked):
				t.Errorf("%s: %v", what, err)
			}
		}
		if checked < access.FreeAttempts || checked >= access.FreeAttempts+atATime {
			t.Errorf("%s: %d of %d guesses were checked", what, checked, guesses)
		}
	}
}

// TestForgottenStaysForgotten: a machine that an administrator forgot does not
// come back by the approval or the one-use token of before.
func TestForgottenStaysForgotten(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := platformtest.Start(t, dsn, nil)
		svc, ctx := p.Service, t.Context()
		approved := p.Machine("approved")
		if err := approved.Enrol(p.First.Organisation.CustomerID); code(err) != wire.CodePending {
			t.Fatal(err)
		}
		request := must[[]fleet.EnrolmentRequest](t)(svc.Enrolments(ctx, p.Admin, ""))[0]
		must[fleet.EnrolmentRequest](t)(svc.DecideEnrolment(ctx, p.Admin, request.ID, true))
		token := must[platform.Install](t)(svc.AddServer(ctx, p.Admin, platform.NewServer{Scenario: platform.ByCustomerID})).Token
		for _, tt := range []struct {
			m          *platformtest.Machine
			credential string
			want       wire.Code
		}{{approved, p.First.Organisation.CustomerID, wire.CodePending}, {p.Machine("token"), token, wire.CodeRefused}} {
			for range 2 { // the second time its answer was lost
				if err := tt.m.Enrol(tt.credential); err != nil {
					t.Fatal(err)
				}
			}
			if err := svc.RemoveServer(ctx, p.Admin, tt.m.SystemID); err != nil {
				t.Fatal(err)
			}
			if err := tt.m.Enrol(tt.credential); code(err) != tt.want {
				t.Errorf("a forgotten machine asks again: %v", err)
			}
		}
	})
}

// TestRemovedServerIsDismissed: the open connection of a server that was
// removed ends at once, while it waits for orders.
func TestRemovedServerIsDismissed(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	m := p.Machine("removed")
	token := must[platform.Install](t)(p.Service.AddServer(t.Context(), p.Admin, platform.NewServer{Scenario: platform.ByCustomerID})).Token
	if err := m.Enrol(token); err != nil {
		t.Fatal(err)
	}
	m.Start()
	waits := make(chan error, 1)
	go func() {
		_, err := m.Call(wire.Work, nil)
		waits <- err
	}()
	if err := p.Service.RemoveServer(t.Context(), p.Admin, m.SystemID); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; code(err) != wire.CodeUnknown {
		t.Errorf("the connection of a removed server: %v", err)
	}
}

// TestLastPage: a list that ends with its page has no next one.
func TestLastPage(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	all := must[fleet.Page[audit.Entry]](t)(p.Service.Audit(t.Context(), p.Admin, platform.List{}))
	for short, next := range map[int]bool{0: false, 1: true} {
		page := must[fleet.Page[audit.Entry]](t)(p.Service.Audit(t.Context(), p.Admin, platform.List{Limit: len(all.Items) - short}))
		if len(page.Items) != len(all.Items)-short || (page.Next != "") != next {
			t.Errorf("%d of %d entries, next %q", len(page.Items), page.Total, page.Next)
		}
	}
}
