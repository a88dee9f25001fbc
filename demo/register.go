package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/demo/world"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/packaging"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/portal/client"
)

// createKey has the portal make a key and looks for it on both sides, and for
// its secret in everything that either stores.
func (t *tour) createKey(ctx context.Context) (string, error) {
	var err error
	if t.key, err = t.console.CreateKey(ctx, platform.NewKey{Note: "demonstration"}); err != nil {
		return "", err
	}
	if _, err := enrol.Parse(t.key.Text); err != nil {
		return "", err
	}
	listed, err := t.console.Keys(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(listed, func(k fleet.Key) bool { return k.ID == t.key.ID && k.Enabled }) {
		return "", errors.New("the platform does not list the key")
	}
	if _, err := t.portalKey(ctx); err != nil {
		return "", err
	}
	searched, holding, err := t.stage.Holding(strings.Split(t.key.Text, "_")[2])
	if err != nil {
		return "", err
	}
	if len(holding) > 0 || searched == 0 {
		return "", fmt.Errorf("the key's secret is stored readably in %v", holding)
	}
	return fmt.Sprintf("key %s: made by the portal, listed by portal and platform, shown once\nits secret is in none of the %d files that both store: the portal keeps the public half, the platform keeps it encrypted",
		t.key.ID, searched), nil
}

// portalKey returns the key as the portal lists it.
func (t *tour) portalKey(ctx context.Context) (client.Key, error) {
	customer, err := t.customer(ctx)
	if err != nil {
		return client.Key{}, err
	}
	keys, err := t.portal.Partner.Keys(ctx, customer)
	if err != nil {
		return client.Key{}, err
	}
	i := slices.IndexFunc(keys, func(k client.Key) bool { return k.ID == t.key.ID })
	if i < 0 {
		return client.Key{}, fmt.Errorf("the portal does not list key %s", t.key.ID)
	}
	return keys[i], nil
}

// customer returns the Customer ID of the platform's one organisation.
func (t *tour) customer(ctx context.Context) (string, error) {
	customers, err := t.portal.Partner.Customers(ctx)
	if err != nil {
		return "", err
	}
	if len(customers) != 1 {
		return "", fmt.Errorf("the portal knows %d customers of the partner instead of one", len(customers))
	}
	return customers[0].ID, nil
}

// activate has the platform retrieve and decrypt the key.
func (t *tour) activate(ctx context.Context) (string, error) {
	install, err := t.console.Activate(ctx, t.key.ID)
	if err != nil {
		return "", err
	}
	if install.Key != t.key.Text || !strings.Contains(install.Command, install.TrustDigest) {
		return "", errors.New("the platform gave out another key or no trust digest")
	}
	return "the platform decrypted the key that was made above and put it into the command\ntrust digest " + install.TrustDigest, nil
}

// installByKey runs the command of "Add new server" on the first server.
func (t *tour) installByKey(ctx context.Context) (string, error) {
	var err error
	t.byKey, err = t.console.AddServer(ctx, platform.NewServer{Scenario: platform.ByKey, KeyID: t.key.ID})
	if err != nil {
		return "", err
	}
	return t.install(ctx, t.alpha.Server, t.byKey)
}

// install runs an install command inside a server as an administrator would.
func (t *tour) install(ctx context.Context, s *world.Server, install platform.Install) (string, error) {
	out, err := s.Run(ctx, nil, "sh", "-c", install.Command)
	if err != nil {
		return "", err
	}
	version, err := s.Run(ctx, nil, "dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "livemend-agent")
	if err != nil {
		return "", err
	}
	if !strings.HasSuffix(version, " installed") {
		return "", fmt.Errorf("dpkg says %q of the agent", version)
	}
	var agent world.Process
	err = stage.Until(ctx, "the agent runs", func() (bool, error) {
		processes, err := s.Processes()
		i := slices.IndexFunc(processes, func(p world.Process) bool { return p.Command == "livemend-agent" })
		if i >= 0 {
			agent = processes[i]
		}
		return i >= 0, err
	})
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(s.Path(stage.AgentLog)))
	}
	size := install.Packages[0].Length
	if size > packaging.MaxPackage {
		return "", fmt.Errorf("the agent's package has %d bytes", size)
	}
	return fmt.Sprintf("%s: package %s of %d bytes installed and started as process %d by: curl ... | sh\n%s",
		s.Name, install.Packages[0].Name, size, agent.PID, strings.TrimSpace(out)), nil
}

// registeredByKey asks the portal what it was told.
func (t *tour) registeredByKey(ctx context.Context) (string, error) {
	system, err := t.system(ctx, t.alpha.Name)
	if err != nil {
		return "", err
	}
	key, err := t.portalKey(ctx)
	if err != nil {
		return "", err
	}
	if key.Servers != 1 {
		return "", fmt.Errorf("the portal counts %d servers of the key instead of one", key.Servers)
	}
	return fmt.Sprintf("the portal registered %s of customer %s with key %s, which it checked against the key's public half", system.Hostname, system.CustomerID, key.ID), nil
}

// system returns a server as the portal lists it.
func (t *tour) system(ctx context.Context, hostname string) (client.System, error) {
	customer, err := t.customer(ctx)
	if err != nil {
		return client.System{}, err
	}
	systems, err := t.portal.Partner.Systems(ctx, customer)
	if err != nil {
		return client.System{}, err
	}
	i := slices.IndexFunc(systems, func(s client.System) bool { return s.Hostname == hostname })
	if i < 0 {
		return client.System{}, fmt.Errorf("the portal does not list %s", hostname)
	}
	return systems[i], nil
}

// sameSystemID wants portal and platform to name the server alike.
func (t *tour) sameSystemID(ctx context.Context, s *world.Server) (string, error) {
	system, err := t.system(ctx, s.Name)
	if err != nil {
		return "", err
	}
	servers, err := t.console.Servers(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(servers, func(o platform.ServerSummary) bool { return o.Hostname == s.Name })
	if i < 0 || servers[i].ID != system.ID || servers[i].MachineID != s.MachineID {
		return "", fmt.Errorf("the platform does not hold System ID %s for %s", system.ID, s.Name)
	}
	if t.systems == nil {
		t.systems = map[string]string{}
	}
	t.systems[s.Name] = system.ID
	return fmt.Sprintf("%s is %s at the portal and on the platform (machine-id %s, enrolled by %s)", s.Name, system.ID, s.MachineID, servers[i].Via), nil
}

func (t *tour) systemIDReturned(ctx context.Context) (string, error) {
	return t.sameSystemID(ctx, t.alpha.Server)
}

func (t *tour) tokenSystemID(ctx context.Context) (string, error) {
	return t.sameSystemID(ctx, t.beta.Server)
}

// installByToken adds the second server by Customer ID and one-use token.
func (t *tour) installByToken(ctx context.Context) (string, error) {
	var err error
	t.byToken, err = t.console.AddServer(ctx, platform.NewServer{Scenario: platform.ByCustomerID, Note: "demonstration"})
	if err != nil {
		return "", err
	}
	if strings.Contains(t.byToken.Command, t.key.Text) {
		return "", errors.New("the command of scenario 2 holds the registration key")
	}
	out, err := t.install(ctx, t.beta.Server, t.byToken)
	if err != nil {
		return "", err
	}
	tokens, err := t.console.Tokens(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(tokens, func(o fleet.Token) bool { return o.ID == t.byToken.TokenID && o.UsedBy != "" }) {
		return "", errors.New("the platform does not list the token as used")
	}
	return fmt.Sprintf("Customer ID %s with one-use token %s, used now\n%s", t.byToken.CustomerID, t.byToken.TokenID, out), nil
}

// agentsKeepSystemID reads it where the agents keep it.
func (t *tour) agentsKeepSystemID(ctx context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		var out string
		// The agent says what it is once it has looked around for the first time.
		err := stage.Until(ctx, "the agent knows itself", func() (bool, error) {
			var err error
			out, err = h.Run(ctx, nil, "livemend-agent", "status")
			return err == nil, ctx.Err()
		})
		if err != nil {
			return "", err
		}
		stored, err := os.ReadFile(h.Path(filepath.Join(stage.AgentState, "enrolment.json")))
		if err != nil {
			return "", err
		}
		id := t.systems[h.Name]
		if !strings.Contains(out, id) || !strings.Contains(string(stored), `"`+id+`"`) {
			return "", fmt.Errorf("the agent does not keep %s: %s", id, out)
		}
		return "the agent keeps " + id + " in " + stage.AgentState, nil
	})
}

// refuseGamma lets a third machine try with the used token, then with the bare
// Customer ID, and refuses it.
func (t *tour) refuseGamma(ctx context.Context) (string, error) {
	if out, err := t.gamma.Run(ctx, nil, "sh", "-c", t.byToken.Command); err == nil {
		return "", fmt.Errorf("the used token enrolled another machine: %s", out)
	}
	bare := "curl -fsS " + t.byToken.ScriptURL + " | LIVEMEND_CUSTOMER=" + t.byToken.CustomerID + " LIVEMEND_TRUST=" + t.byToken.TrustDigest + " sh"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := t.gamma.Run(ctx, nil, "sh", "-c", bare)
		ended <- err
	}()
	var waiting fleet.EnrolmentRequest
	err := stage.Until(ctx, "gamma waits for a person", func() (bool, error) {
		requests, err := t.console.Enrolments(ctx)
		i := slices.IndexFunc(requests, func(r fleet.EnrolmentRequest) bool {
			return r.Facts.Hostname == t.gamma.Name && r.State == fleet.EnrolmentPending
		})
		if i >= 0 {
			waiting = requests[i]
		}
		return i >= 0, err
	})
	if err != nil {
		return "", err
	}
	if err := t.console.RefuseEnrolment(ctx, waiting.ID); err != nil {
		return "", err
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if err == nil {
		return "", errors.New("the refused machine enrolled")
	}
	if _, err := t.system(ctx, t.gamma.Name); err == nil {
		return "", errors.New("the portal registered the refused machine")
	}
	return fmt.Sprintf("gamma was refused with beta's used token; with the Customer ID alone it waited (key fingerprint %s) and was refused by a person\nits agent: %s",
		waiting.Fingerprint, agentSays(err.Error())), nil
}

// agentSays finds the agent's own words in the output of the install command.
func agentSays(output string) string {
	for line := range strings.Lines(output) {
		if words, ok := strings.CutPrefix(line, "livemend-agent: "); ok {
			return strings.TrimSpace(words)
		}
	}
	return strings.TrimSpace(output)
}

// tail returns the end of a file, or why it cannot be read.
func tail(path string) string {
	const bytes = 2000
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-bytes):])
}
