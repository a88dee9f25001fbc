package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readWithJS makes tuf-js print the contents of targets, one in each line.
const readWithJS = `
const fs = require('fs');
const [, module, metadataDir, targetDir, metadata, targets, ...paths] = process.argv;
const { Updater } = require(module);
(async () => {
  const reader = new Updater({ metadataDir, metadataBaseUrl: metadata, targetDir, targetBaseUrl: targets });
  await reader.refresh();
  for (const path of paths) {
    const info = await reader.getTargetInfo(path);
    if (!info) throw new Error('no target ' + path);
    console.log(fs.readFileSync(await reader.downloadTarget(info), 'utf8'));
  }
})().catch((err) => { console.error(err); process.exit(1); });
`

// TestThirdImplementationReadsTheSimulation is for what go-tuf does not read:
// roles by hash prefix.
func TestThirdImplementationReadsTheSimulation(t *testing.T) {
	module := tufJS(t)
	r := newRepository(t)
	r.hashed = true
	r.delegate("targets", delegation{name: "A", paths: []string{"a/*"}})
	r.delegate("A", delegation{name: "B/b", paths: []string{"a/*.zip"}, terminating: true})
	r.delegate("targets", delegation{name: "H", prefixes: []string{sumOf("sha256", []byte("h/x"))[:2]}})
	for role, path := range map[string]string{"A": "a/x", "B/b": "a/x.zip", "H": "h/x"} {
		r.add(role, path, "content of "+path)
	}
	r.publish("A", "B/b", "H", "targets", "snapshot", "timestamp")
	r.rotate("timestamp")
	r.publish("root", "timestamp")
	dir, targets := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.json"), r.published["root"][0], 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{"a/x", "a/x.zip", "h/x"}
	r.settle()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"-e", readWithJS, module, dir, targets, r.url + "/metadata", r.url + "/targets"}, paths...)...)
	out, err := cmd.CombinedOutput()
	r.settle()
	if err != nil {
		t.Fatalf("tuf-js: %v\n%s", err, out)
	}
	if got, want := string(out), "content of a/x\ncontent of a/x.zip\ncontent of h/x\n"; got != want {
		t.Errorf("tuf-js reads %q, want %q", got, want)
	}
	u := started(t, r)
	u.must(u.download(r, paths...), 0)
	u.wantHave(strings.Split(strings.TrimSpace(string(out)), "\n")...)
}

// tufJS returns where tuf-js is: npm brings it, to verify what it installs.
func tufJS(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed, so tuf-js can not read the repository")
	}
	out, err := exec.CommandContext(t.Context(), "npm", "root", "-g").Output()
	if err != nil {
		t.Skipf("npm, which brings tuf-js, does not answer: %v", err)
	}
	module := filepath.Join(strings.TrimSpace(string(out)), "npm", "node_modules", "tuf-js")
	if _, err := os.Stat(module); err != nil {
		t.Skipf("this npm does not bring tuf-js: %v", err)
	}
	return module
}
