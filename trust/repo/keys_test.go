package repo_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

func TestCeremony(t *testing.T) {
	dir := t.TempDir() + "/keys"
	c := repo.Ceremony{RootKeys: 3, RootThreshold: 4, TargetsKeys: 2, TargetsThreshold: 2}
	if _, err := c.Run(t.Context(), dir, now); !errors.Is(err, repo.ErrSpec) {
		t.Errorf("4 of 3 keys: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused ceremony left something: %v", err)
	}
	c.RootThreshold = 2
	// An interrupted run left a key; it is used.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := repo.CreateKey(dir + "/root-2.key")
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Run(t.Context(), dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := repo.LoadKey(files.RootKeys[1]); err != nil || k.Public() != left.Public() {
		t.Errorf("the key of the interrupted run was replaced: %v", err)
	}
	if _, err := c.Run(t.Context(), dir, now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second ceremony in the folder: %v", err)
	}
}

func TestDirectorCeremony(t *testing.T) {
	files, err := repo.DirectorCeremony{RootKeys: 3, RootThreshold: 2}.Run(t.Context(), t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(files.Root)
	if err != nil {
		t.Fatal(err)
	}
	root, err := trust.ParseDirectorRoot(b, trust.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	_, channel, err := repo.LoadChannelKey(files.Channel)
	if err != nil || !root.AllowsServer(hex.EncodeToString(channel)) {
		t.Errorf("the channel key is not in the root: %v", err)
	}
	k, err := repo.LoadKey(files.Director)
	if err != nil {
		t.Fatal(err)
	}
	m := trust.Manifest{SystemID: "s", KeyHash: strings.Repeat("0", 64), Counter: 1, Task: "t", Action: trust.Scan, Scanner: "x",
		Issued: now.Unix(), NotAfter: now.Unix() + 60}
	signed, err := repo.Sign(t.Context(), (&trust.Envelope{Signed: m.Value()}).Encode(), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.VerifyManifest(signed, root, trust.Identity{SystemID: "s", KeyHash: m.KeyHash}, 0, now); err != nil {
		t.Errorf("the director's manifest: %v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	path := t.TempDir() + "/key"
	k, err := repo.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.CreateKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was replaced: %v", err)
	}
	if again, err := repo.LoadKey(path); err != nil || again.Public() != k.Public() {
		t.Errorf("LoadKey: %v", err)
	}
	private := strings.Split(strings.Split(string(text), `"private": "`)[1], `"`)[0]
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(format, k), private[:16]) {
			t.Errorf("%s shows the private half", format)
		}
	}
	for name, content := range map[string]string{
		"empty":             "",
		"not JSON":          "key",
		"another type":      strings.Replace(string(text), "ed25519", "x25519", 1),
		"halves differ":     strings.Replace(string(text), private, strings.Repeat("0", 64), 1),
		"private too short": strings.Replace(string(text), private, private[2:], 1),
	} {
		bad := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := repo.LoadKey(bad)
		if !errors.Is(err, repo.ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), private) {
			t.Errorf("%s: the error shows the private half", name)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.LoadKey(path); !errors.Is(err, repo.ErrKeyFile) {
		t.Errorf("a key that the group may read: %v", err)
	}
}

func TestSignReplacesOwnSignature(t *testing.T) {
	p := newPortal(t)
	k := p.key(p.files.TargetsKeys[0])
	once, err := repo.Sign(t.Context(), p.targets, k)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.ParseEnvelope(once, trust.MaxTargets)
	if err != nil || len(e.Signatures) != 2 {
		t.Errorf("%d signatures, %v", len(e.Signatures), err)
	}
	if _, err := repo.AddTarget(p.file(p.files.Root), patchTarget(1, "x", "CVE-1"), now); !errors.Is(err, repo.ErrDocument) {
		t.Errorf("a target added to a root: %v", err)
	}
}
