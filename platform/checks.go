package platform

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/patch/module"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/wire"
)

// Names of the security checks, in their order.
const (
	checkRepository = "repository chain"
	checkNamed      = "not withdrawn"
	checkBlocked    = "not blocklisted"
	checkContent    = "hashes and length"
	checkStructure  = "artifact structure"
	checkInventory  = "target is in the inventory"
	checkScanner    = "external scanner"
	checkDirector   = "director chain"
	checkAgree      = "same file in both"
)

// Bounds of the checks.
const (
	downloadTimeout = 5 * time.Minute
	scannerTimeout  = 2 * time.Minute
	maxTarget       = 64 << 20 // bytes of a target that agents take
	maxScannerWords = 500      // bytes of what the external scanner says
)

// contentMemo remembers the last content that was checked for a job, so that a
// job for many servers reads its patch once.
type contentMemo struct {
	mu     sync.Mutex
	key    string
	checks []fleet.Check
}

// inspection runs the security checks of one task and keeps each with its
// outcome. After a failed one the rest is skipped.
type inspection struct {
	s       *Service
	task    platformdb.Task
	server  fleet.Server
	target  trust.Target
	md      *patch.Metadata // nil for a scan
	checks  []fleet.Check
	failure string // of the first check that failed
}

func (c *inspection) note(name string, outcome fleet.CheckOutcome, detail string) {
	c.checks = append(c.checks, fleet.Check{Task: c.task.ID, Name: name, Outcome: outcome, Detail: detail, At: c.s.now()})
}

// run makes one check. check returns what to say when it passed; an empty text
// with no error means that it does not apply, and an error that it failed.
func (c *inspection) run(name, skipped string, check func() (string, error)) {
	if c.failure != "" {
		c.note(name, fleet.CheckSkipped, "an earlier check failed")
		return
	}
	if skipped != "" {
		c.note(name, fleet.CheckSkipped, skipped)
		return
	}
	detail, err := check()
	if err != nil {
		c.failure = name + ": " + err.Error()
		c.note(name, fleet.CheckFailed, err.Error())
		return
	}
	c.note(name, fleet.CheckPassed, detail)
}

// inspect runs the checks that come before the order is signed. The error is
// the platform's own trouble; what speaks against the task is in failure.
func (s *Service) inspect(ctx context.Context, task platformdb.Task, server fleet.Server) (*inspection, error) {
	c := &inspection{s: s, task: task, server: server}
	revert, scan := "", ""
	if task.Action == string(trust.Revert) {
		revert = "a revert needs the director alone"
	}
	if task.Action == string(trust.Scan) {
		scan = "a scan changes nothing on the server"
	}
	var trusted *trust.Trusted
	c.run(checkRepository, revert, func() (detail string, err error) {
		trusted, detail, err = s.currentRepository(ctx)
		return detail, err
	})
	c.run(checkNamed, revert, func() (string, error) { return c.named(trusted) })
	blocks, err := platformdb.Blocks(ctx, s.db, task.Organisation)
	if err != nil {
		return nil, err
	}
	c.run(checkBlocked, revert, func() (string, error) {
		if reason := blocks[task.Path]; reason != "" {
			return "", errors.New("this organisation blocks it: " + reason)
		}
		return "nobody of this organisation blocks it", nil
	})
	if err := c.content(ctx, revert); err != nil {
		return nil, err
	}
	b, err := platformdb.Inventory(ctx, s.db, server.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	c.run(checkInventory, scan, func() (string, error) { return c.inInventory(b) })
	return c, nil
}

// currentRepository refreshes the repository, or makes do with the verified copy
// while that has not expired.
func (s *Service) currentRepository(ctx context.Context) (*trust.Trusted, string, error) {
	trusted, err := s.refresh(ctx, freshFor)
	if err == nil {
		return trusted, fmt.Sprintf("root %d, snapshot %d, targets %d: signatures, versions and times verified", trusted.Root().Version, trusted.SnapshotVersion(), trusted.TargetsVersion()), nil
	}
	if errors.As(err, new(*trust.Refusal)) {
		return nil, "", err
	}
	stored, loadErr := client.Load(s.mirror, trust.Ed25519(), s.now(), false)
	if loadErr != nil {
		return nil, "", fmt.Errorf("the portal cannot be reached and the copy here is not good any more: %w", loadErr)
	}
	return stored, fmt.Sprintf("the portal cannot be reached; the verified copy of targets %d has not expired", stored.TargetsVersion()), nil
}

// named compares the task with what the repository says now.
func (c *inspection) named(trusted *trust.Trusted) (string, error) {
	target, err := trusted.Target(c.task.Path)
	if err != nil {
		return "", err
	}
	if target.SHA256 != c.task.SHA256 || target.Length != c.task.Length {
		return "", errors.New("the repository names another file now than when the job was made: make a new job")
	}
	if target.Length > maxTarget {
		return "", fmt.Errorf("the file has %d bytes, more than agents take", target.Length)
	}
	c.target = target
	if c.task.Action == string(trust.Scan) {
		content, ok := patch.ParseContent(target.Custom)
		if !ok || content.Scanner != c.task.Scanner {
			return "", errors.New("it is not content for the scanner " + c.task.Scanner)
		}
		return "the repository offers it as content for " + content.Scanner, nil
	}
	if c.md, err = patch.ParseCustom(target.Custom); err != nil {
		return "", err
	}
	return "the repository offers it as patch " + c.md.ID, nil
}

// content makes the checks that look at the file itself, once per job.
func (c *inspection) content(ctx context.Context, revert string) error {
	command := c.s.cfg.CheckCommand
	none := revert
	if none == "" && len(command) == 0 {
		none = "none configured"
	}
	key := fmt.Sprintf("%s %d %s %s", c.task.Organisation, c.task.Job, c.task.Path, c.task.SHA256)
	memo := &c.s.memo
	memo.mu.Lock()
	defer memo.mu.Unlock()
	if memo.key == key && c.failure == "" && revert == "" {
		for _, done := range memo.checks {
			done.Task, done.At = c.task.ID, c.s.now()
			c.checks = append(c.checks, done)
		}
		return nil
	}
	start := len(c.checks)
	var data []byte
	c.run(checkContent, revert, func() (detail string, err error) {
		data, err = c.s.fetchTarget(ctx, c.target)
		return fmt.Sprintf("%d bytes, SHA-256 %s", len(data), c.target.SHA256), err
	})
	if c.failure != "" && ctx.Err() != nil {
		return ctx.Err()
	}
	c.run(checkStructure, revert, func() (string, error) { return c.structure(data) })
	c.run(checkScanner, none, func() (string, error) { return c.s.external(ctx, command, c.target) })
	if c.failure == "" && revert == "" {
		memo.key, memo.checks = key, append([]fleet.Check(nil), c.checks[start:]...)
	}
	return nil
}

// structure reads the artifact the way the agent will.
func (c *inspection) structure(data []byte) (string, error) {
	if c.md == nil {
		decoder := xml.NewDecoder(bytes.NewReader(data))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				return "well-formed XML", nil
			} else if err != nil {
				return "", fmt.Errorf("the scanner's content is not well-formed XML: %w", err)
			}
		}
	}
	if c.md.Kind == patch.Kernel {
		m, err := module.For(data, c.md.Target)
		return "live-patch module " + m.Name + " for " + m.Release + " " + m.Flags, err
	}
	file, err := image.Decode(data)
	if err != nil {
		return "", err
	}
	if err := file.Check(); err != nil {
		return "", err
	}
	if file.BuildID != c.md.Target.BuildID || file.Arch != c.md.Target.Arch {
		return "", errors.New("the artifact is made for another binary than its metadata says")
	}
	return fmt.Sprintf("%s, %s, no page both writable and executable", plural(len(file.Hunks), "function", "functions"), plural(len(file.Segments), "segment", "segments")), nil
}

// inInventory looks for the patch's target among what the server said it runs;
// snapshot is its inventory as it came, nil before the first. One that cannot be
// read speaks against the task: waiting would not make it readable.
func (c *inspection) inInventory(snapshot []byte) (string, error) {
	if snapshot == nil {
		return "", errors.New("the server has not sent an inventory yet")
	}
	inventory, err := wire.DecodeSnapshot(snapshot)
	if err != nil {
		return "", fmt.Errorf("the server's stored inventory cannot be read, restart its agent to have a new one: %w", err)
	}
	if c.task.BuildID == inventory.Facts.KernelID && c.task.BuildID != "" {
		return "the running kernel has build-id " + c.task.BuildID, nil
	}
	for _, l := range inventory.Libraries {
		if l.BuildID == c.task.BuildID {
			return fmt.Sprintf("%s, build-id %s, mapped by %s", l.Path, l.BuildID, plural(int(l.Processes), "process", "processes")), nil
		}
	}
	if c.task.Action == string(trust.Revert) {
		return "no process maps it now; the patch is taken off the list", nil
	}
	return "", errors.New("nothing with build-id " + c.task.BuildID + " is in use on the server")
}

// fetchTarget returns a target's bytes, from the verified files or from the
// portal, and keeps them for agents.
func (s *Service) fetchTarget(ctx context.Context, t trust.Target) (data []byte, err error) {
	if _, err := s.files.Stat(t.SHA256); errors.Is(err, blob.ErrNotFound) {
		ctx, stop := context.WithTimeout(ctx, downloadTimeout)
		defer stop()
		body, err := s.portal.Fetch(ctx, "targets/"+t.StorageName(), t.Length)
		if err != nil {
			return nil, err
		}
		if err := trust.CheckContent(t, bytes.NewReader(body)); err != nil {
			return nil, err
		}
		if err := s.files.Put(ctx, t.SHA256, bytes.NewReader(body), blob.Want{Max: t.Length, SHA256: t.SHA256}); err != nil {
			return nil, err
		}
	}
	file, err := s.files.Open(t.SHA256)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, t.Length+1))
	if err != nil {
		return nil, err
	}
	return data, trust.CheckContent(t, bytes.NewReader(data))
}

// external gives the file to the configured command, which says by its exit
// status whether the file may be used.
func (s *Service) external(ctx context.Context, command []string, t trust.Target) (_ string, err error) {
	folder, err := os.MkdirTemp("", "livemend-check-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	data, err := s.fetchTarget(ctx, t)
	if err != nil {
		return "", err
	}
	path := folder + "/artifact"
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", err
	}
	ctx, stop := context.WithTimeout(ctx, scannerTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], path)...)
	var words limitedWords
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s says no: %w %s", command[0], err, words.String())
	}
	return command[0] + " found nothing", nil
}

// limitedWords keeps the first bytes of what a program says.
type limitedWords struct{ strings.Builder }

func (w *limitedWords) Write(p []byte) (int, error) {
	if room := maxScannerWords - w.Len(); room > 0 {
		w.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
