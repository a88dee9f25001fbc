// Package fixes holds diffs of real fixes, and no code: its tests build live
// patches for the distribution's real kernels from them, load them into guests
// and ask the guests whether the hole is closed. The fixes are our own diffs in folder diffs,
// or are taken at test time, function by function, from a later version of the
// distribution's source package; none of its text is kept here. What came of each
// is in docs/kernel-fixes.md.
package fixes

import "embed"

// Diffs are our own forms of fixes, in files diffs/NAME.diff.
//
//go:embed diffs/*.diff
var Diffs embed.FS
