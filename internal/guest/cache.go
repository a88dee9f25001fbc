package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that something a guest is made of cannot be had here. A
// test that meets it is skipped and says why.
var ErrUnavailable = errors.New("no guest can be booted here")

// Limits on what is read of packages.
const (
	fetchTime  = 5 * time.Minute
	maxKernel  = 256 << 20 // bytes of an unpacked kernel
	maxMember  = 64 << 20  // bytes of one file of a package
	setupAt    = 0x1f1     // in a bzImage: sectors of its first part
	payloadAt  = 0x248     // where the compressed kernel lies, and its length
	sectorSize = 512
)

// cacheDir is where packages and what is made of them stay between runs.
func cacheDir() (string, error) {
	dir := os.Getenv("LIVEMEND_GUEST_CACHE")
	switch {
	case dir != "":
	case os.Getuid() == 0:
		dir = "/var/cache/livemend-guest"
	default:
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "livemend-guest")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// cached returns the folder name of the cache, which fill makes if it is not
// there. Programs that want the same one wait for each other.
func cached(ctx context.Context, name string, fill func(dir string) error) (string, error) {
	root, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for another program that makes %s: %w", dir, ctx.Err())
		case <-time.After(100 * time.Millisecond): // a lock of a file tells nobody
		}
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished := dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", err
	}
	if err := os.Mkdir(unfinished, 0o755); err != nil {
		return "", err
	}
	if err := fill(unfinished); err != nil {
		return "", errors.Join(err, os.RemoveAll(unfinished))
	}
	return dir, os.Rename(unfinished, dir)
}

// Fetch returns the path of a package, which is downloaded when the cache does
// not hold it. A package that the archive has no more, or no more in the pinned
// form, is ErrUnavailable.
func Fetch(ctx context.Context, p Package) (string, error) {
	dir, err := cached(ctx, filepath.Join("packages", p.SHA256), func(dir string) error {
		ctx, end := context.WithTimeout(ctx, fetchTime)
		defer end()
		cmd := exec.CommandContext(ctx, "apt-get", "download", "-q", p.Name+"="+p.Version)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: package %s=%s cannot be downloaded; it may have left the distribution's archive, or its lists may be old (apt-get update): %w: %s",
				ErrUnavailable, p.Name, p.Version, err, bytes.TrimSpace(out))
		}
		file, err := only(dir)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != p.SHA256 {
			return fmt.Errorf("%w: package %s=%s is not the pinned one: its SHA-256 is %x", ErrUnavailable, p.Name, p.Version, sum)
		}
		return os.Rename(file, filepath.Join(dir, p.Name+".deb"))
	})
	return filepath.Join(dir, p.Name+".deb"), err
}

// only returns the one file in dir.
func only(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("%d files in %s, want one", len(list), dir)
	}
	return filepath.Join(dir, list[0].Name()), nil
}

// Unpack returns the folder with the kernel's parts: vmlinux (the uncompressed
// kernel without its symbols), System.map, config, and the drivers of a guest as
// NAME.ko.
func (k Kernel) Unpack(ctx context.Context) (string, error) {
	return cached(ctx, filepath.Join("kernels", k.Image.SHA256), func(dir string) error {
		deb, err := Fetch(ctx, k.Image)
		if err != nil {
			return err
		}
		return walk(ctx, deb, func(h *tar.Header, r io.Reader) error {
			name, compressed := strings.CutSuffix(path.Base(h.Name), ".xz")
			driver, isModule := strings.CutSuffix(name, ".ko")
			switch {
			case isModule && !slices.Contains(drivers, driver):
				return nil
			case isModule:
			case name == "vmlinuz-"+k.Release:
				name = "vmlinux"
			case name == "System.map-"+k.Release:
				name = "System.map"
			case name == "config-"+k.Release:
				name = "config"
			default:
				return nil
			}
			b, err := io.ReadAll(io.LimitReader(r, maxMember))
			if err == nil && compressed {
				b, err = filter(ctx, b, "xz", "-dc")
			}
			if err == nil && name == "vmlinux" {
				b, err = payload(ctx, b)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			return os.WriteFile(filepath.Join(dir, name), b, 0o644)
		})
	})
}

// walk calls visit with each regular file of a package.
func walk(ctx context.Context, deb string, visit func(*tar.Header, io.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for r := tar.NewReader(out); err == nil; {
		var h *tar.Header
		if h, err = r.Next(); err == nil && h.Typeflag == tar.TypeReg {
			err = visit(h, r)
		}
	}
	if !errors.Is(err, io.EOF) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return err
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		return err
	}
	return cmd.Wait()
}

// payload unpacks the kernel proper from a bzImage, whose header says where it
// lies (Documentation/arch/x86/boot.rst).
func payload(ctx context.Context, image []byte) ([]byte, error) {
	if len(image) < payloadAt+8 {
		return nil, errors.New("too short for a kernel")
	}
	start := (int(image[setupAt])+1)*sectorSize + int(binary.LittleEndian.Uint32(image[payloadAt:]))
	end := start + int(binary.LittleEndian.Uint32(image[payloadAt+4:])) - 4 // the size follows
	if start > end || end > len(image) {
		return nil, errors.New("the compressed kernel lies outside of the file")
	}
	b := image[start:end]
	switch {
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		return filter(ctx, b, "xz", "-dc")
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		return filter(ctx, b, "zstd", "-dcq")
	}
	return nil, errors.New("the kernel is compressed in a way that is not known here")
}

func filter(ctx context.Context, in []byte, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, errs.String())
	}
	if out.Len() > maxKernel {
		return nil, errors.New("too large for a kernel")
	}
	return out.Bytes(), nil
}
