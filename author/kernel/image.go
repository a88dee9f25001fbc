package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Places in a bzImage, from the kernel's documentation of the boot protocol.
const (
	setupSectors  = 0x1f1
	payloadOffset = 0x248
	payloadLength = 0x24c
	sector        = 512
)

// vmlinux unpacks the kernel of the image package.
func (b *build) vmlinux(ctx context.Context, p *packages) ([]byte, error) {
	kept := filepath.Join(b.Work, "vmlinux-"+b.Release+"_"+p.version)
	if data, err := os.ReadFile(kept); err == nil {
		return data, nil
	}
	data, err := os.ReadFile(filepath.Join(p.image, "boot", "vmlinuz-"+b.Release))
	if err != nil {
		return nil, fmt.Errorf("the image package has no kernel: %w", err)
	}
	if len(data) < payloadLength+4 {
		return nil, errors.New("the kernel of the image package is cut short")
	}
	from := (int(data[setupSectors])+1)*sector + int(binary.LittleEndian.Uint32(data[payloadOffset:]))
	length := int(binary.LittleEndian.Uint32(data[payloadLength:]))
	if from < 0 || length < 0 || from+length > len(data) {
		return nil, errors.New("the kernel of the image package is not of the form that is known")
	}
	// Behind the compressed kernel stands its length, which is not part of it.
	payload := data[from : from+length]
	out, err := b.unpack(ctx, payload[:max(0, length-4)])
	if err != nil {
		return nil, fmt.Errorf("unpacking the kernel: %w", err)
	}
	return out, replace(kept, out)
}

// unpack runs the program for a compressed text.
func (b *build) unpack(ctx context.Context, packed []byte) ([]byte, error) {
	f, err := os.CreateTemp(b.Work, "packed-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(packed)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(packed, []byte("\xfd7zXZ\x00")):
		return run(ctx, b.Work, "", "sh", "-c", `xz --decompress --stdout < "$1"`, "xz", f.Name())
	case bytes.HasPrefix(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return run(ctx, b.Work, "", "zstd", "--decompress", "--quiet", "--stdout", f.Name())
	}
	return nil, errors.New("it is compressed in a way that is not known")
}

// replace writes a file, whole or not at all.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// moduleFile returns the bytes of a module of the image package, or
// fs.ErrNotExist.
func (b *build) moduleFile(ctx context.Context, p *packages, name string) ([]byte, error) {
	var found string
	for _, top := range []string{"lib/modules", "usr/lib/modules"} {
		root := filepath.Join(p.image, top, b.Release)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			base, _, isModule := strings.Cut(filepath.Base(path), ".ko")
			if isModule && strings.ReplaceAll(base, "-", "_") == name {
				found = path
				return fs.SkipAll
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if found == "" {
		return nil, fmt.Errorf("module %s is not in the image package: %w", name, fs.ErrNotExist)
	}
	data, err := os.ReadFile(found)
	if err == nil && strings.HasSuffix(found, ".xz") {
		return b.unpack(ctx, data)
	}
	return data, err
}
