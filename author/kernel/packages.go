package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"livemend.dev/livemend/patch"
)

// packages are the unpacked packages of one release.
type packages struct {
	version string
	headers string // folder with .config and Module.symvers
	image   string // folder with boot and lib
	source  string // folder of the source, prepared
}

var versionPattern = regexp.MustCompile(`^[0-9][A-Za-z0-9.+:~-]{0,99}$`)

// run runs a program of the distribution to its end.
func run(ctx context.Context, dir, log string, args ...string) ([]byte, error) {
	ctx, end := context.WithTimeout(ctx, stepTime)
	defer end()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=livemend", "KBUILD_BUILD_HOST=livemend", "SOURCE_DATE_EPOCH=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if log != "" {
		// What it said is for people; the error below has its end.
		_ = os.WriteFile(log, append(out.Bytes(), problems.Bytes()...), 0o644)
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), fmt.Errorf("%s: %w\n%s", strings.Join(args[:min(len(args), 3)], " "), err, tail(problems.Bytes())))
	}
	return out.Bytes(), nil
}

// tail is the end of what a program said.
func tail(b []byte) string {
	const most = 4096
	return strings.TrimSpace(string(b[max(0, len(b)-most):]))
}

// fetch gets and unpacks the packages of the release.
func (b *build) fetch(ctx context.Context) (*packages, error) {
	if err := os.MkdirAll(b.Work, 0o755); err != nil {
		return nil, err
	}
	p := &packages{}
	series := releasePattern.FindStringSubmatch(b.Release)[1]
	headers, image := "linux-headers-"+b.Release, "linux-image-"+b.Release
	var err error
	if p.version, err = b.version(ctx, headers); err != nil {
		return nil, err
	}
	root, err := b.unpacked(ctx, headers, p.version)
	if err != nil {
		return nil, err
	}
	p.headers = filepath.Join(root, "usr/src", headers)
	if p.image, err = b.unpacked(ctx, image, p.version); err != nil {
		return nil, err
	}
	source, err := b.unpacked(ctx, "linux-source-"+series, p.version)
	if err != nil {
		return nil, err
	}
	p.source, err = b.prepared(ctx, p, filepath.Join(source, "usr/src", "linux-source-"+series+".tar.xz"))
	return p, err
}

// version asks apt which version the release's packages have.
func (b *build) version(ctx context.Context, name string) (string, error) {
	kept := filepath.Join(b.Work, "version-"+b.Release)
	if text, err := os.ReadFile(kept); err == nil && versionPattern.Match(text) {
		return string(text), nil
	}
	out, err := run(ctx, "/", "", "apt-cache", "madison", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if parts := strings.Split(line, "|"); len(parts) == 3 {
			v := strings.TrimSpace(parts[1])
			if versionPattern.MatchString(v) {
				return v, os.WriteFile(kept, []byte(v), 0o644)
			}
		}
	}
	return "", fmt.Errorf("%w: apt knows no package %s; the release may have left the archive, or its lists may be old (apt-get update)", ErrUnavailable, name)
}

// unpacked returns the folder with the files of a package.
func (b *build) unpacked(ctx context.Context, name, version string) (string, error) {
	dir := filepath.Join(b.Work, name+"_"+strings.ReplaceAll(version, ":", "%3a"))
	sum := dir + ".sha256"
	if text, err := os.ReadFile(sum); err == nil {
		if _, err := os.Stat(dir); err == nil {
			b.inputs = append(b.inputs, patch.Input{Name: "package " + name + " " + version, SHA256: string(text)})
			return dir, nil
		}
	}
	fresh, err := os.MkdirTemp(b.Work, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	b.say("packages: fetching %s %s", name, version)
	if _, err := run(ctx, fresh, "", "apt-get", "download", "-q", name+"="+version); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s %s; it may have left the archive", ErrUnavailable, name, version), err)
	}
	debs, err := filepath.Glob(filepath.Join(fresh, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download of %s left %d files: %w", name, len(debs), err)
	}
	data, err := os.ReadFile(debs[0])
	if err != nil {
		return "", err
	}
	if _, err := run(ctx, fresh, "", "dpkg-deb", "-x", debs[0], filepath.Join(fresh, "tree")); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(fresh, "tree"), dir); err != nil {
		return "", err
	}
	b.inputs = append(b.inputs, patch.Input{Name: "package " + name + " " + version, SHA256: sumOf(data)})
	return dir, os.WriteFile(sum, []byte(sumOf(data)), 0o644)
}
