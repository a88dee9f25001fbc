package orders

import (
	"context"
	"crypto/sha256"
	"strconv"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/wire"
)

// admitted is a patch that was verified, in the hands of the engine for its
// kind.
type admitted interface {
	// apply, revert and status do to every place what the engine's methods of
	// these names do.
	apply(ctx context.Context) ([]place, error)
	revert(ctx context.Context) ([]place, error)
	status(ctx context.Context) ([]place, error)

	// account says for people what an application came to.
	account(outcome wire.Outcome, n counts) string
}

// userPatch is a patch for a shared library or program.
type userPatch struct {
	engine *userspace.Engine
	patch  userspace.Patch
}

func (u userPatch) apply(ctx context.Context) ([]place, error) {
	results, err := u.engine.Apply(ctx, u.patch)
	return processes(results), err
}

func (u userPatch) revert(ctx context.Context) ([]place, error) {
	results, err := u.engine.Revert(ctx, u.patch)
	return processes(results), err
}

func (u userPatch) status(ctx context.Context) ([]place, error) {
	results, err := u.engine.Status(ctx, u.patch)
	return processes(results), err
}

func (u userPatch) account(outcome wire.Outcome, n counts) string {
	switch outcome {
	case wire.Failed:
		return "the patch could not be applied to any process; nothing was changed: see the reason of each"
	case wire.Nothing:
		return "no process has the library mapped; processes that start or load it later are patched at once where the kernel tells of them, else within a minute"
	case wire.Partial:
		return strconv.FormatInt(n.live, 10) + " processes are patched, " + strconv.FormatInt(n.others, 10) + " could not be patched yet and are tried again"
	}
	return "every process that has the library mapped is patched: " + strconv.FormatInt(n.live, 10)
}

// decode makes an admitted patch of an artifact that is signed already. target
// is what its metadata says that it is for; of a stored one that is only to be
// taken off, or looked at, the build-id is enough.
func (x *Executor) decode(path string, artifact []byte, sum string, target patch.Target, level int64) (admitted, error) {
	raw, ok := hextext.Decode(sum)
	if !ok || len(raw) != sha256.Size {
		return nil, refused("malformed", "the hash of the patch is no hash")
	}
	hash := [sha256.Size]byte(raw)
	if isKernel(path) {
		if x.Kernel == nil {
			return nil, refused(classEngine, "this agent cannot load kernel patches here, its log says why")
		}
		return kernelPatch{x, kernel.Patch{Module: artifact, SHA256: hash, Target: target, Level: level}, path}, nil
	}
	file, err := image.Decode(artifact)
	if err != nil {
		return nil, &refusal{classImage, err}
	}
	if file.BuildID != target.BuildID {
		return nil, refused(classTarget, "the patch was linked for another build of the library")
	}
	return userPatch{x.Engine, userspace.Patch{File: file, SHA256: hash, Level: level}}, nil
}
