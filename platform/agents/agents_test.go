package agents_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// key makes a registration key and returns its text.
func key(t *testing.T, p *platformtest.Platform) string {
	t.Helper()
	made, err := p.Service.CreateKey(t.Context(), p.Admin, platform.NewKey{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Text
}

func TestBeforeThereIsAnAgent(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	status, body := get(t, p.URL+"/trust.json")
	bundle, err := trust.ParseBundle([]byte(body), trust.Ed25519())
	if status != http.StatusOK || err != nil || bundle.Digest() != p.Bundle.Digest() {
		t.Errorf("trust bundle: %d, %v", status, err)
	}
	if status, body = get(t, p.URL+"/install"); status != http.StatusOK || !strings.HasPrefix(body, "#!/bin/sh") || !strings.Contains(body, p.URL) {
		t.Errorf("install script: %d %.80q", status, body)
	}
	if status, body = get(t, p.URL+"/install/livemend-agent_0.1.0_amd64.deb"); status != http.StatusOK || body != "the agent's package" {
		t.Errorf("package: %d %.80q", status, body)
	}
	for _, name := range []string{"livemend-agent_9.9.9_amd64.deb", "master.key", "..%2fmaster.key"} {
		if status, _ := get(t, p.URL+"/install/"+name); status != http.StatusNotFound {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status, _ := get(t, p.URL+channel.Path); status != http.StatusUpgradeRequired {
		t.Errorf("the channel without an upgrade: %d", status)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	stranger := p.Machine("stranger")
	stranger.Connect()
	hello := wire.Greeting{Version: wire.Version}.Encode()
	answer, err := stranger.Call(wire.Hello, hello)
	if welcome, decodeErr := wire.DecodeWelcome(answer); err != nil || decodeErr != nil || welcome.Known {
		t.Fatalf("hello: %+v, %v, %v", welcome, err, decodeErr)
	}
	for _, tt := range []struct {
		name   string
		method wire.Method
		body   []byte
		want   wire.Code
	}{
		{"work", wire.Work, nil, wire.CodeUnknown},
		{"inventory", wire.Inventory, []byte("{}"), wire.CodeUnknown},
		{"metadata", wire.Metadata, wire.Range{Path: "timestamp.json", Len: 1}.Encode(), wire.CodeUnknown},
		{"enrolment without a challenge", wire.Enrol, wire.Enrolment{}.Encode(), wire.CodeMalformed},
		{"a greeting that is none", wire.Hello, []byte("hello"), wire.CodeMalformed},
		{"a version before the first", wire.Hello, wire.Greeting{}.Encode(), wire.CodeOutdated},
	} {
		_, err := stranger.Call(tt.method, tt.body)
		var refusal *wire.Error
		if !errors.As(err, &refusal) || refusal.Code != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := stranger.Call(wire.Challenge, nil); err != nil {
		t.Error(err)
	}
	if _, err := stranger.Call(wire.Challenge, nil); err == nil {
		t.Error("a second challenge on one connection")
	}

	m := p.Machine("web-01")
	if err := m.Enrol(key(t, p)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	for _, tt := range []struct {
		name   string
		method wire.Method
		body   []byte
		want   wire.Code
	}{
		{"an unknown method", 999, nil, wire.CodeMalformed},
		{"an inventory that is none", wire.Inventory, []byte("{}"), wire.CodeMalformed},
		{"a range that is none", wire.Target, []byte("{}"), wire.CodeMalformed},
		{"a file that is not here", wire.Target, wire.Range{Path: "user/x", SHA256: strings.Repeat("0", 64), Len: 1}.Encode(), wire.CodeNotFound},
		{"a file outside", wire.Target, wire.Range{Path: "../x", SHA256: "../../master.key", Len: 1}.Encode(), wire.CodeNotFound},
		{"progress of nothing", wire.Progress, wire.Step{Task: "T-NONE"}.Encode(), wire.CodeNotFound},
		{"a report that is none", wire.Result, []byte("{}"), wire.CodeMalformed},
	} {
		_, err := m.Call(tt.method, tt.body)
		var refusal *wire.Error
		if !errors.As(err, &refusal) || refusal.Code != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestOneConnectionPerAgent(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	m := p.Machine("web-01")
	if err := m.Enrol(key(t, p)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	twin := *m // the same keys, from somewhere else
	old := m.Peer
	waiting := make(chan error, 1)
	go func() {
		_, err := old.Call(context.Background(), wire.Work, nil)
		waiting <- err
	}()
	twin.Forget()
	twin.Start()
	select {
	case err := <-waiting:
		if err == nil {
			t.Error("the older connection got an answer")
		}
	case <-time.After(30 * time.Second):
		t.Error("the older connection stays open")
	}
	servers, err := p.Service.Servers(t.Context(), p.Admin, platform.ServerFilter{Online: "online"})
	if err != nil || len(servers.Items) != 1 {
		t.Errorf("online: %+v, %v", servers.Items, err)
	}
}

func TestGuessersWait(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	m := p.Machine("guesser")
	for range 100 {
		err := m.Enrol("0123456789")
		var refusal *wire.Error
		if !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		if refusal.Code == wire.CodeBusy {
			return
		}
	}
	t.Error("a hundred guesses from one address in a row")
}
