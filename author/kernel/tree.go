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
	"strconv"
	"strings"

	"livemend.dev/livemend/author/refusal"
)

// What the distribution's configuration says of its tools.
var (
	compilerPattern = regexp.MustCompile(`(?m)^CONFIG_CC_VERSION_TEXT="([A-Za-z0-9_.+-]+) ([^"\n]*)"$`)
	paholePattern   = regexp.MustCompile(`(?m)^CONFIG_PAHOLE_VERSION=([0-9])([0-9]{2})$`)
)

// tools are what a source is built with.
type tools struct {
	compiler string // program
	version  string // as it says itself
	pahole   string // stands in for a program that only has to say its version
}

// toolsFor reads them from the configuration and checks that the compiler is the
// distribution's.
func (b *build) toolsFor(ctx context.Context, config []byte) (*tools, error) {
	m := compilerPattern.FindSubmatch(config)
	if m == nil {
		return nil, errors.New("the distribution's configuration does not name its compiler")
	}
	t := &tools{compiler: string(m[1]), version: string(m[1]) + " " + string(m[2])}
	if _, err := exec.LookPath(t.compiler); err != nil {
		return nil, fmt.Errorf("the kernel was made with %s; install that compiler: %w", t.version, err)
	}
	out, err := run(ctx, "/", "", t.compiler, "--version")
	if err != nil {
		return nil, err
	}
	if first, _, _ := strings.Cut(string(out), "\n"); first != t.version {
		return nil, refusal.New(refusal.Foreign, "compiler", "the kernel was made with "+t.version+", and here is "+first+"; its code would be another")
	}
	if p := paholePattern.FindSubmatch(config); p != nil {
		// The configuration depends on this version, and nothing that is built here
		// on the program itself.
		t.pahole = filepath.Join(b.Work, "pahole-"+string(p[1])+string(p[2]))
		text := fmt.Sprintf("#!/bin/sh\necho v%s.%s\n", p[1], p[2])
		if err := os.WriteFile(t.pahole, []byte(text), 0o755); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// sectionFlags give each function and variable a section of its own, so that they
// can be compared and taken out.
const sectionFlags = "-ffunction-sections -fdata-sections"

// make runs make in a source tree.
func (b *build) make(ctx context.Context, t *tools, dir, log string, args ...string) error {
	// The kernels have no code in Rust, and were configured without a compiler for it.
	all := []string{"nice", "-n", "5", "make", "-s", "-j" + strconv.Itoa(b.Jobs), "-C", dir, "CC=" + t.compiler, "KERNELRELEASE=" + b.Release, "KCFLAGS=" + sectionFlags, "RUSTC=false", "BINDGEN=false"}
	if t.pahole != "" {
		all = append(all, "PAHOLE="+t.pahole)
	}
	_, err := run(ctx, dir, log, append(all, args...)...)
	return err
}

// prepared returns the unpacked source, configured as the distribution's and ready
// to compile. It is made once.
func (b *build) prepared(ctx context.Context, p *packages, archive string) (string, error) {
	dir := filepath.Join(b.Work, "source-"+b.Release+"_"+p.version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	config, err := os.ReadFile(filepath.Join(p.headers, ".config"))
	if err != nil {
		return "", fmt.Errorf("the headers package has no configuration: %w", err)
	}
	t, err := b.toolsFor(ctx, config)
	if err != nil {
		return "", err
	}
	b.say("source: unpacking")
	fresh := filepath.Join(b.Work, "source-new")
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o755)); err != nil {
		return "", err
	}
	if _, err := run(ctx, fresh, "", "tar", "-xf", archive, "--strip-components=1"); err != nil {
		return "", err
	}
	for _, name := range []string{".config", "Module.symvers"} {
		data, err := os.ReadFile(filepath.Join(p.headers, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(fresh, name), data, 0o644); err != nil {
			return "", err
		}
	}
	b.say("source: preparing with the distribution's configuration")
	if err := b.make(ctx, t, fresh, filepath.Join(b.Work, "prepare.log"), "olddefconfig", "prepare", "modules_prepare"); err != nil {
		return "", err
	}
	for _, name := range []string{"autoconf.h", "utsrelease.h", "asm-offsets.h", "bounds.h"} {
		ours, err := os.ReadFile(filepath.Join(fresh, "include/generated", name))
		if err != nil {
			return "", err
		}
		theirs, err := os.ReadFile(filepath.Join(p.headers, "include/generated", name))
		if err != nil {
			return "", err
		}
		if !bytes.Equal(ours, theirs) {
			return "", refusal.New(refusal.Foreign, "include/generated/"+name, "this machine's tools configure the kernel otherwise than the distribution's did ("+firstDifference(ours, theirs)+")")
		}
	}
	return dir, os.Rename(fresh, dir)
}

func firstDifference(ours, theirs []byte) string {
	a, b := strings.Split(string(ours), "\n"), strings.Split(string(theirs), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("here %q, there %q", a[i], b[i])
		}
	}
	return "one is longer"
}

// unit is one object of the kernel.
type unit struct {
	path   string // of the object, from the top of the source
	module string // that it is part of; empty for the kernel itself
	flags  string // with which objtool checked it; empty when it was not
}

var (
	modulePattern  = regexp.MustCompile(`-DKBUILD_MODNAME='?"?([A-Za-z0-9_]+)"?'?`)
	objtoolPattern = regexp.MustCompile(`tools/objtool/objtool ((?:--?[A-Za-z0-9=_-]+ +)+)`)
)

// unitOf reads how kbuild made an object.
func unitOf(tree, path string) (unit, error) {
	u := unit{path: path}
	text, err := os.ReadFile(filepath.Join(tree, filepath.Dir(path), "."+filepath.Base(path)+".cmd"))
	if err != nil {
		return u, fmt.Errorf("how %s was made is not known: %w", path, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if strings.Contains(line, " -DMODULE ") {
		m := modulePattern.FindStringSubmatch(line)
		if m == nil {
			return u, fmt.Errorf("which module %s is part of is not known", path)
		}
		u.module = m[1]
	}
	if m := objtoolPattern.FindStringSubmatch(string(text)); m != nil {
		u.flags = strings.TrimSpace(m[1])
	}
	return u, nil
}
