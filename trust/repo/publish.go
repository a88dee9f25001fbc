package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"time"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
)

// publish checks signedTargets, stores the artifacts it lists and announces it.
func (r *Repository) publish(ctx context.Context, s *state, signedTargets []byte, artifacts fs.FS, now time.Time) error {
	next, err := trust.NewTrusted(s.root, trust.Ed25519())
	if err != nil {
		return err
	}
	if err := next.RecallTargets(signedTargets); err != nil {
		return err
	}
	if next.TargetsVersion() != s.targetsVersion+1 {
		return fmt.Errorf("%w: it has version %d, the next one is %d", ErrPublished, next.TargetsVersion(), s.targetsVersion+1)
	}
	if !now.Before(next.Expires()) {
		return fmt.Errorf("%w: it or the root has expired", ErrPublished)
	}
	if err := checkPatches(next, s.listed); err != nil {
		return err
	}
	for t := range next.Targets() {
		if err := r.storeArtifact(ctx, t, s.listed, artifacts); err != nil {
			return err
		}
	}
	s.targets, s.targetsVersion = signedTargets, next.TargetsVersion()
	return r.announce(ctx, s, now)
}

// storeArtifact makes sure that the target's bytes are in the repository. What
// was published before was verified then, so its size is enough now.
func (r *Repository) storeArtifact(ctx context.Context, t trust.Target, before *trust.Trusted, artifacts fs.FS) (err error) {
	name := targetsFolder + t.StorageName()
	if before != nil {
		old, err := before.Target(t.Path)
		if err == nil && old.SHA256 == t.SHA256 && old.Length == t.Length {
			info, err := r.files.Stat(name)
			if err != nil {
				return fmt.Errorf("%w: target %s was published before but is gone: %w", ErrPublished, t.Path, err)
			}
			if info.Size != t.Length {
				return fmt.Errorf("%w: target %s was published before but its stored file has another length", ErrPublished, t.Path)
			}
			return nil
		}
	}
	file, err := r.openArtifact(t, name, artifacts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if t.SHA256 == "" {
		return fmt.Errorf("%w: target %s has no SHA-256", ErrPublished, t.Path)
	}
	switch err := r.files.Put(ctx, name, file, blob.Want{Max: t.Length, SHA256: t.SHA256}); {
	case errors.Is(err, blob.ErrHash):
		return fmt.Errorf("target %s: %w", t.Path, trust.ErrHash)
	case errors.Is(err, blob.ErrTooLarge):
		return fmt.Errorf("target %s: %w", t.Path, trust.ErrLength)
	case errors.Is(err, blob.ErrName):
		return fmt.Errorf("%w: target %s: its path has characters other than letters, digits and . _ ~ + -", ErrPublished, t.Path)
	case err != nil:
		return err
	}
	info, err := r.files.Stat(name)
	if err == nil && info.Size != t.Length {
		err = fmt.Errorf("target %s: %w", t.Path, trust.ErrLength)
	}
	return err
}

// openArtifact prefers the publisher's file to one that an interrupted
// publication left, and reads either through the same checks.
func (r *Repository) openArtifact(t trust.Target, name string, artifacts fs.FS) (fs.File, error) {
	if artifacts != nil {
		file, err := artifacts.Open(t.Path)
		if !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return nil, fmt.Errorf("reading target %s: %w", t.Path, err)
			}
			return file, nil
		}
	}
	file, err := r.files.Open(name)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, fmt.Errorf("%w: the file of target %s was not given", ErrPublished, t.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading target %s: %w", t.Path, err)
	}
	return file, nil
}

// checkPatches refuses
//   - a patch or scanner content whose description is not well formed, or that
//     stands under another path than its own;
//   - a published level whose content changed: a correction is a new level;
//   - a level that lacks a fix of an older level of the same target: levels
//     replace each other, so the newest one has to hold everything. To drop a
//     fix, withdraw the levels that have it in the same publication.
func checkPatches(next, before *trust.Trusted) error {
	type target struct {
		kind patch.Kind
		id   patch.BuildID
	}
	levels := make(map[target][]*patch.Metadata)
	ids := make(map[string]string)
	for t := range next.Targets() {
		md, err := patch.ParseCustom(t.Custom)
		if errors.Is(err, patch.ErrNotPatch) {
			if err := checkContent(t); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: target %s: %w", ErrPublished, t.Path, err)
		}
		if md.Path() != t.Path {
			return fmt.Errorf("%w: target %s says that its path is %s", ErrPublished, t.Path, md.Path())
		}
		if other, taken := ids[md.ID]; taken {
			return fmt.Errorf("%w: targets %s and %s have the same id %s", ErrPublished, other, t.Path, md.ID)
		}
		ids[md.ID] = t.Path
		if err := checkSame(t, before); err != nil {
			return err
		}
		key := target{md.Kind, md.Target.BuildID}
		levels[key] = append(levels[key], md)
	}
	for _, list := range levels {
		sort.Slice(list, func(i, j int) bool { return list[i].Level < list[j].Level })
		for i := 1; i < len(list); i++ {
			for _, f := range list[i-1].Fixes {
				if !list[i].Covers(f.CVE) {
					return fmt.Errorf("%w: %s lacks the fix of %s that %s has", ErrPublished, list[i].Path(), f.CVE, list[i-1].Path())
				}
			}
		}
	}
	return nil
}

func checkContent(t trust.Target) error {
	if _, ours := t.Custom.Get("livemend"); !ours {
		return nil // another publisher's file; agents do not use it
	}
	if _, ok := patch.ParseContent(t.Custom); !ok {
		return fmt.Errorf("%w: target %s is neither a patch nor scanner content", ErrPublished, t.Path)
	}
	return nil
}

func checkSame(t trust.Target, before *trust.Trusted) error {
	if before == nil {
		return nil
	}
	old, err := before.Target(t.Path)
	if err == nil && (old.SHA256 != t.SHA256 || old.Length != t.Length) {
		return fmt.Errorf("%w: target %s is published with other content; publish a correction as a new level", ErrPublished, t.Path)
	}
	return nil
}
