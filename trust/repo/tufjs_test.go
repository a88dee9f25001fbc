package repo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readWithJS makes tuf-js follow the root, and print a target's content.
const readWithJS = `
const fs = require('fs');
const [, module, metadataDir, targetDir, metadata, targets, path] = process.argv;
const { Updater } = require(module);
(async () => {
  const reader = new Updater({ metadataDir, metadataBaseUrl: metadata, targetDir, targetBaseUrl: targets });
  await reader.refresh();
  const info = await reader.getTargetInfo(path);
  if (!info) throw new Error('no target ' + path);
  console.log(fs.readFileSync(await reader.downloadTarget(info), 'utf8'));
  console.log(JSON.parse(fs.readFileSync(metadataDir + '/root.json')).signed.version);
})().catch((err) => { console.error(err); process.exit(1); });
`

func TestThirdImplementationReadsIt(t *testing.T) {
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
	p := newPortal(t)
	target := patchTarget(1, "a patch", "CVE-1")
	p.add(target, "a patch")
	if err := p.publish(); err != nil {
		t.Fatal(err)
	}
	if err := p.repo.PublishRoot(t.Context(), rotated(p, nil), now); err != nil {
		t.Fatal(err)
	}
	url, dir := p.serve(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.json"), p.file(p.files.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := exec.CommandContext(t.Context(), "node", "-e", readWithJS, module, dir, t.TempDir(), url, url+"/targets", target.Path).CombinedOutput()
	if err != nil || string(read) != "a patch\n2\n" {
		t.Errorf("tuf-js reads %q, %v", read, err)
	}
}
