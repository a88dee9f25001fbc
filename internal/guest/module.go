package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Module compiles one C file into a module for a kernel, against the kernel's
// headers package, and returns the path of NAME.ko. The same source is compiled
// once. The source says its own licence, GPL-2.0.
func Module(t testing.TB, k Kernel, name, source string) string {
	t.Helper()
	path, err := BuildModule(t.Context(), k, name, source)
	skipWithout(t, err)
	return path
}

// BuildModule is Module for callers that are no tests.
func BuildModule(ctx context.Context, k Kernel, name, source string) (string, error) {
	headers, err := k.UnpackHeaders(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(filepath.Base(headers) + "\x00" + name + "\x00" + source))
	dir, err := cached(ctx, filepath.Join("modules", hex.EncodeToString(sum[:])), func(dir string) error {
		for file, text := range map[string]string{name + ".c": source, "Makefile": "obj-m := " + name + ".o\n"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				return err
			}
		}
		// A symbol that no kernel exports is a warning: some tests want to see what
		// the kernel says. The last setting is for kernels whose modules have type
		// information, which needs the whole kernel image.
		for _, c := range [][]string{
			{"make", "-s", "-C", filepath.Join(headers, "usr/src", "linux-headers-"+k.Release), "M=" + dir, "KBUILD_MODPOST_WARN=1", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"},
			{"strip", "--strip-debug", filepath.Join(dir, name+".ko")},
		} {
			cmd := exec.CommandContext(ctx, c[0], c[1:]...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("building module %s for %s: %s: %w\n%s", name, k.Release, c[0], err, out)
			}
		}
		return nil
	})
	return filepath.Join(dir, name+".ko"), err
}

// UnpackHeaders returns a folder below which the kernel's headers lie as its
// packages have them; modules are built in usr/src/linux-headers-RELEASE.
func (k Kernel) UnpackHeaders(ctx context.Context) (string, error) {
	if len(k.Headers) == 0 {
		return "", fmt.Errorf("no headers package is known for %s", k.Release)
	}
	key := sha256.New()
	for _, p := range k.Headers {
		key.Write([]byte(p.SHA256))
	}
	name := filepath.Join("headers", hex.EncodeToString(key.Sum(nil)))
	root, err := cacheDir()
	if err != nil {
		return "", err
	}
	return cached(ctx, name, func(dir string) error {
		for _, p := range k.Headers {
			deb, err := Fetch(ctx, p)
			if err != nil {
				return err
			}
			if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		// Its Makefile names the place where the package would be installed.
		file := filepath.Join(dir, "usr/src", "linux-headers-"+k.Release, "Makefile")
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the headers packages of %s do not hold %s", k.Release, file)
		}
		if err != nil {
			return err
		}
		b = bytes.ReplaceAll(b, []byte("/usr/src/"), []byte(filepath.Join(root, name, "usr/src")+"/"))
		return os.WriteFile(file, b, 0o644)
	})
}
