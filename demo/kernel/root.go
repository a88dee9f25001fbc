package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"livemend.dev/livemend/internal/guest"
)

// programs are what a server has beside the kernel: what the install command of
// the platform runs, the scanner, and what these need of each other.
var programs = []string{
	"/usr/bin/oscap", "/usr/bin/curl", "/usr/bin/dpkg", "/usr/bin/dpkg-deb", "/usr/bin/dpkg-query", "/usr/bin/dpkg-split", "/usr/bin/tar",
	"/usr/bin/dash", "/usr/bin/diff", "/usr/bin/cat", "/usr/bin/chmod", "/usr/bin/id", "/usr/bin/install", "/usr/bin/kill", "/usr/bin/ls", "/usr/bin/mkdir", "/usr/bin/mktemp",
	"/usr/bin/readlink", "/usr/bin/rm", "/usr/bin/setsid", "/usr/bin/sha256sum", "/usr/bin/sleep", "/usr/bin/uname",
	"/usr/sbin/ldconfig", "/usr/sbin/start-stop-daemon",
}

// folders are data that scanner and package manager read.
var folders = []string{"/usr/share/openscap/schemas", "/usr/share/openscap/xsl", "/usr/share/dpkg"}

// root returns what a guest has to have to be a server of the distribution: path
// in the guest: file of this machine. Files that are made for it lie in work.
func root(ctx context.Context, work string, kernel guest.Kernel) (map[string]string, error) {
	files := map[string]string{}
	for _, p := range programs {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return nil, fmt.Errorf("%w: run make need-demo-kernel", err)
		}
		files[p] = real
		if err := libraries(ctx, p, files); err != nil {
			return nil, err
		}
	}
	files["/bin/sh"] = files["/usr/bin/dash"]
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files[path] = path
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for path, content := range made(kernel) {
		file := filepath.Join(work, "root", path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return nil, err
		}
		files[path] = file
	}
	return files, nil
}

// library finds the files in what ldd prints.
var library = regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`)

// libraries adds what the dynamic linker loads for a program.
func libraries(ctx context.Context, program string, files map[string]string) error {
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	for _, m := range library.FindAllSubmatch(out, -1) {
		path := string(m[1])
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		files[path] = real
	}
	return nil
}

// made are the files that say which server it is. Its one package is the kernel.
func made(kernel guest.Kernel) map[string]string {
	var machineID [16]byte
	_, _ = rand.Read(machineID[:]) // never fails
	return map[string]string{
		"/etc/machine-id":     hex.EncodeToString(machineID[:]) + "\n",
		"/etc/os-release":     "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"/etc/debian_version": "12.0\n",
		"/etc/passwd":         "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
		"/etc/group":          "root:x:0:\nnogroup:x:65534:\n",
		"/etc/nsswitch.conf":  "passwd: files\ngroup: files\nhosts: files\n",
		"/etc/hosts":          "127.0.0.1 localhost\n",
		"/var/lib/dpkg/status": "Package: " + kernel.Image.Name + "\nStatus: install ok installed\nPriority: optional\nSection: kernel\n" +
			"Maintainer: Debian Kernel Team <debian-kernel@lists.debian.org>\nArchitecture: amd64\nSource: linux-signed-amd64\n" +
			"Version: " + kernel.Image.Version + "\nDescription: Linux for 64-bit PCs\n",
		"/var/lib/dpkg/info/" + kernel.Image.Name + ".list": "/.\n",
		"/var/lib/dpkg/available":                           "",
		"/var/lib/apt/lists/partial/.keep":                  "",
		"/var/cache/apt/archives/partial/.keep":             "",
		"/var/log/dpkg.log":                                 "",
		"/etc/apt/apt.conf.d/.keep":                         "",
		"/etc/dpkg/dpkg.cfg":                                "",
	}
}

// size is how much of the guest's memory the files take, in megabytes.
func size(files map[string]string) (megabytes int64, err error) {
	for _, path := range slices.Sorted(maps.Values(files)) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		megabytes += info.Size()
	}
	return megabytes >> 20, nil
}

// environment is what programs in the guest get.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DPKG_FRONTEND_LOCKED="}

// words joins what a program wrote, for evidence.
func words(b []byte) string { return strings.Join(strings.Fields(string(b)), " ") }
