package portal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/repo"
)

// Timing of the repository's upkeep.
const (
	renewEvery  = 10 * time.Minute
	stagedLife  = 24 * time.Hour // an upload without a release is removed after this
	upkeepLimit = 5 * time.Minute
)

// Artifact says which uploaded file is which target.
type Artifact struct {
	Path   string // target path
	SHA256 string // of the file, lower-case hex
}

// StoreArtifact keeps an uploaded file until its release. It is not public yet.
func (s *Service) StoreArtifact(ctx context.Context, a Actor, sum string, r io.Reader) error {
	if err := a.may(ScopePublish); err != nil {
		return err
	}
	if !validSum(sum) {
		return refuse(Invalid, "a file is uploaded under its SHA-256, 64 lower-case hex digits")
	}
	err := s.staging.Put(ctx, sum, r, blob.Want{Max: MaxArtifact, SHA256: sum})
	switch {
	case errors.Is(err, blob.ErrHash):
		return refuse(Invalid, "the file's content has another SHA-256 than the request says; nothing was kept, upload it again")
	case errors.Is(err, blob.ErrTooLarge):
		return refuse(Invalid, fmt.Sprintf("the file is larger than %d bytes; nothing was kept", MaxArtifact))
	case err != nil:
		return fmt.Errorf("keeping an artifact: %w", err)
	}
	return nil
}

// Publish makes signed targets metadata the current one. The repository checks
// everything before anything becomes public, and a release that was
// interrupted may be repeated.
func (s *Service) Publish(ctx context.Context, a Actor, targets []byte, artifacts []Artifact) error {
	if err := a.may(ScopePublish); err != nil {
		return err
	}
	files := staged{files: s.staging, sums: make(map[string]string, len(artifacts))}
	for _, artifact := range artifacts {
		if !validSum(artifact.SHA256) {
			return refuse(Invalid, "an artifact's SHA-256 has 64 lower-case hex digits")
		}
		files.sums[artifact.Path] = artifact.SHA256
	}
	digest := sha256.Sum256(targets)
	object := hex.EncodeToString(digest[:])
	// Recorded first: files have no transaction, and nothing may become public unrecorded.
	if err := s.note(ctx, a, "publish.targets", object, fmt.Sprintf("%d new files", len(artifacts))); err != nil {
		return err
	}
	if err := s.repo.Publish(ctx, targets, files, s.now()); err != nil {
		s.log.WarnContext(ctx, "release refused", slog.String("credential", a.credential), slog.Any("error", err))
		noted := s.note(ctx, a, "refuse.targets", object, trust.Class(err))
		if !refused(err) || noted != nil {
			return errors.Join(fmt.Errorf("publishing: %w", err), noted)
		}
		return refuse(Invalid, "the release was refused and nothing became public: "+err.Error())
	}
	for _, artifact := range artifacts {
		if err := s.staging.Remove(artifact.SHA256); err != nil && !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("the release is public, but an uploaded copy stays: %w", err)
		}
	}
	return nil
}

// refused reports whether the release is at fault, not the portal.
func refused(err error) bool {
	return errors.Is(err, repo.ErrPublished) || errors.Is(err, repo.ErrDocument) || trust.Class(err) != "other"
}

// note records a deed that has no transaction of its own.
func (s *Service) note(ctx context.Context, a Actor, action, object, detail string) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error { return s.record(ctx, tx, a, action, object, detail) })
}

// Run keeps the repository fresh until ctx ends: timestamp and snapshot are
// signed again before they expire, and forgotten uploads are removed.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if err := s.Upkeep(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "upkeep of the repository failed, it is tried again",
				slog.Any("error", err), slog.Duration("in", renewEvery))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Upkeep does once what Run does again and again.
func (s *Service) Upkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepLimit)
	defer cancel()
	renewed, err := s.repo.Renew(ctx, s.now())
	if err != nil {
		return fmt.Errorf("renewing the repository's metadata: %w", err)
	}
	if renewed {
		s.log.InfoContext(ctx, "repository metadata renewed")
	}
	forgotten, err := s.staging.List("")
	if err != nil {
		return fmt.Errorf("listing uploads: %w", err)
	}
	for _, file := range forgotten {
		if s.now().Sub(file.Changed) < stagedLife {
			continue
		}
		if err := s.staging.Remove(file.Name); err != nil && !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("removing an upload: %w", err)
		}
	}
	return nil
}

func validSum(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == s
}

// staged shows uploaded files under their target paths.
type staged struct {
	files *blob.Dir
	sums  map[string]string
}

// Open implements fs.FS.
func (s staged) Open(path string) (fs.File, error) {
	sum, ok := s.sums[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	file, err := s.files.Open(sum)
	if errors.Is(err, blob.ErrNotFound) {
		err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}
