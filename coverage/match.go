package coverage

import (
	"strings"

	debversion "github.com/knqyf263/go-deb-version"

	"livemend.dev/livemend/patch"
)

// sameComponent reports whether two names mean the same component on this
// server: scanners name source or binary packages, and each kernel package by
// its release. An empty name fits every component.
func (c *computer) sameComponent(a, b string) bool {
	if a == b || a == "" || b == "" {
		return true
	}
	_, kernelA := kernelRelease(a)
	_, kernelB := kernelRelease(b)
	return kernelA && kernelB || c.sources[a] == b || c.sources[b] == a
}

// fixedOnDisk reports whether the installed package already holds the fix.
func (c *computer) fixedOnDisk(component string, fix patch.Fix) bool {
	if fix.FixedVersion == "" {
		return false
	}
	if _, kernel := kernelRelease(fix.Component); kernel {
		for name, version := range c.versions {
			if strings.HasPrefix(name, "linux-image-") && atLeast(version, fix.FixedVersion) {
				return true
			}
		}
		return false
	}
	for _, name := range []string{fix.Component, component} {
		if version, ok := c.versions[name]; ok {
			return atLeast(version, fix.FixedVersion)
		}
	}
	return false
}

// atLeast compares Debian versions. What is no version is never at least
// another: a doubt must not turn into "fixed".
func atLeast(have, want string) bool {
	h, err := debversion.NewVersion(have)
	if err != nil {
		return false
	}
	w, err := debversion.NewVersion(want)
	if err != nil {
		return false
	}
	return !h.LessThan(w)
}
