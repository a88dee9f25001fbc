// Package sample is the service that the demonstration patches: echobeatd, a
// small C network service, and libechobeat.so.1, its library with a planted
// out-of-bounds read under an identifier that cannot be taken for a CVE. It
// builds both with the machine's compiler, packs them as Debian packages, and
// has a client that keeps the service under load and probes it.
//
// It must not know about portal, platform or agent: it is the stranger that
// they are shown to work on.
package sample

import "embed"

// Names and versions of the sample.
const (
	Vulnerability  = "LIVEMEND-2026-0001" // the planted bug
	Severity       = "high"
	LibraryPackage = "libechobeat1"
	DaemonPackage  = "echobeatd"
	Version        = "1.0-1"
	FixedVersion   = "1.0-2" // a package update that would fix it too; it is never installed
	LibraryFile    = "libechobeat.so.1"
	Distribution   = "debian-12"

	Workers          = 2 // processes that serve, beside the master
	ThreadsPerWorker = 8
)

// The paths that the packages install.
const (
	DaemonPath  = "/usr/sbin/echobeatd"
	LibraryPath = "/usr/lib/livemend-sample/" + LibraryFile
	SecretPath  = "/etc/echobeat/secret"
)

// source is the sample's C code: lib and daemon as released, fix with the files
// of lib that the fixed version changes.
//
//go:embed c
var source embed.FS
