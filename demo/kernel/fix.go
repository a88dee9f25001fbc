package main

import _ "embed"

// fix is the change of the kernel's source that closes the flaw.
//
//go:embed CVE-2026-46333.diff
var fix []byte
