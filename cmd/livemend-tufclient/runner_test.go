package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/trust"
)

// program is the command, built once as its users build it.
var program string

// linked keeps the program in the tests' own binary, which does not run it.
// Without it a changed program would leave that binary as it was, and the go
// tool would repeat the results of the program before.
var linked = main

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if linked == nil {
			return 1
		}
		dir, err := os.MkdirTemp("", "livemend-tufclient-*")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "livemend-tufclient")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// user runs the command with folders of its own.
type user struct {
	*testing.T
	metadata string
	targets  string
	path     string // PATH with another date in it, "" for the real one
	patience string
	said     string // by the last run
}

func newUser(t *testing.T) *user {
	t.Helper()
	return &user{T: t, metadata: t.TempDir(), targets: t.TempDir(), patience: "20s"}
}

// run returns the exit status.
func (u *user) run(args ...string) int {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = os.Environ()
	if u.path != "" {
		cmd.Env = append(cmd.Env, "PATH="+u.path)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	u.said = said.String()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	u.Fatalf("%v: %v", args, err)
	return -1
}

func (u *user) init(root []byte) int {
	u.Helper()
	file := filepath.Join(u.TempDir(), "root.json")
	if err := os.WriteFile(file, root, 0o600); err != nil {
		u.Fatal(err)
	}
	return u.run("--metadata-dir", u.metadata, "init", file)
}

func (u *user) refresh(r *repository) int {
	u.Helper()
	r.settle()
	defer r.settle()
	return u.run("--patience", u.patience, "--metadata-url", r.url+"/metadata/", "--metadata-dir", u.metadata, "refresh")
}

func (u *user) download(r *repository, names ...string) int {
	u.Helper()
	r.settle()
	defer r.settle()
	args := []string{"--patience", u.patience, "--metadata-url", r.url + "/metadata/", "--metadata-dir", u.metadata}
	for _, n := range names {
		args = append(args, "--target-name", n)
	}
	return u.run(append(args, "--target-dir", u.targets, "--target-base-url", r.url+"/targets/", "download")...)
}

// must fails the test unless the exit status is the wanted one.
func (u *user) must(got, want int) {
	u.Helper()
	if got != want {
		u.Fatalf("exit status %d, want %d; it said %s", got, want, u.said)
	}
}

// refused wants a status of 1 and the reason in what was said.
func (u *user) refused(got int, reason error) {
	u.Helper()
	u.must(got, 1)
	if !strings.Contains(u.said, reason.Error()) {
		u.Fatalf("refused, but not because of %q: %s", reason, u.said)
	}
}

// later gives the command a date that tells the time in so much time.
func (u *user) later(d time.Duration) {
	u.Helper()
	dir := u.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho %d\n", time.Now().Add(d).Unix())
	if err := os.WriteFile(filepath.Join(dir, "date"), []byte(script), 0o700); err != nil {
		u.Fatal(err)
	}
	u.path = dir + ":" + os.Getenv("PATH")
}

func (u *user) stored(name string) []byte {
	u.Helper()
	b, err := os.ReadFile(filepath.Join(u.metadata, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		u.Fatal(err)
	}
	return b
}

// version returns the version of the stored metadata of a role, 0 without any.
func (u *user) version(role string) int64 {
	u.Helper()
	b := u.stored(role + ".json")
	if b == nil {
		return 0
	}
	e, err := trust.ParseEnvelope(b, trust.MaxTargets)
	if err != nil {
		u.Fatal(err)
	}
	return cjson.Fields(e.Signed).Int("version")
}

// trusted lists the roles that are stored with their versions, as in "root 1".
func (u *user) trusted() []string {
	u.Helper()
	entries, err := os.ReadDir(u.metadata)
	if err != nil {
		u.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		role, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(role, ".") {
			u.Errorf("left behind: %s", e.Name())
			continue
		}
		list = append(list, fmt.Sprint(role, " ", u.version(role)))
	}
	return list
}

// have lists the contents that were downloaded, in the order of their names.
func (u *user) have() []string {
	u.Helper()
	entries, err := os.ReadDir(u.targets)
	if err != nil {
		u.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(u.targets, e.Name()))
		if err != nil {
			u.Fatal(err)
		}
		if strings.HasPrefix(e.Name(), ".") {
			u.Errorf("left behind: %s", e.Name())
		}
		list = append(list, string(b))
	}
	return list
}

func (u *user) wantTrusted(want ...string) {
	u.Helper()
	if got := u.trusted(); !slices.Equal(got, sorted(want)) {
		u.Errorf("stored is %v, want %v", got, sorted(want))
	}
}

func (u *user) wantHave(want ...string) {
	u.Helper()
	if got := sorted(u.have()); !slices.Equal(got, sorted(want)) {
		u.Errorf("downloaded is %q, want %q", got, sorted(want))
	}
}

// started is a user who trusts the repository's first root.
func started(t *testing.T, r *repository) *user {
	t.Helper()
	u := newUser(t)
	u.must(u.init(r.published["root"][0]), 0)
	return u
}
