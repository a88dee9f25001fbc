package kernel

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/state"
)

// forcedFile holds the boot in which a switch was forced.
const forcedFile = "kernel-forced"

// force forces a switch. That it did is durable before, as long as this boot:
// the kernel lets a forced patch be unloaded while tasks are in it.
func (e *Engine) force(id *Identity, name string) error {
	if err := state.Replace(filepath.Join(e.options.RunDir, forcedFile), []byte(id.BootID+"\n"), 0o644); err != nil {
		return err
	}
	if err := set(name, "force", "1"); err != nil {
		return &Error{Kind: ErrStuck, Detail: err.Error()}
	}
	p, over, err := settle(context.Background(), name, time.Now().Add(forceTime))
	if err == nil && (!over || !p.there) {
		err = &Error{Kind: ErrStuck, Detail: "forcing it did not end the switch"}
	}
	return err
}

// forced reports whether a switch was forced since the kernel started, by this
// program's own note or by the kernel's.
func (e *Engine) forced(id *Identity) bool {
	boot, err := fact(e.options.RunDir, forcedFile)
	if err == nil && strings.TrimSpace(boot) == id.BootID {
		return true
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true // nobody knows: nothing is unloaded
	}
	log := openLog(unix.SEEK_SET)
	defer log.close()
	found := false
	log.each(func(text string) bool {
		found = strings.HasPrefix(text, "livepatch: ") && strings.Contains(text, "forcing remaining tasks")
		return !found
	})
	return found
}
