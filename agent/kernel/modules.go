package kernel

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch"
)

// maxLoaded bounds the live patches that are looked at.
const maxLoaded = 256

// Loaded is a live patch in the running kernel, whoever loaded it.
type Loaded struct {
	Name      string
	BuildID   patch.BuildID // of its module, "" when it has none
	Enabled   bool
	Switching bool // on its way to Enabled or away from it
}

// loaded returns the live patches that the kernel has, in no order.
func loaded() ([]Loaded, error) {
	d, err := os.Open("/sys/kernel/livepatch")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel that cannot be live-patched has none
	}
	if err != nil {
		return nil, &Error{Kind: ErrUnreachable, Detail: err.Error()}
	}
	defer d.Close() // only read
	names, err := d.Readdirnames(maxLoaded)
	if err != nil && err != io.EOF { // none
		return nil, &Error{Kind: ErrUnreachable, Detail: err.Error()}
	}
	var list []Loaded
	for _, name := range names {
		p, err := readPhase(name)
		if err != nil {
			return nil, err
		}
		if p.there {
			list = append(list, Loaded{name, moduleID(name), p.enabled, p.switching})
		}
	}
	return list, nil
}

// moduleID returns a loaded module's own build-id.
func moduleID(name string) patch.BuildID {
	notes, _ := fact("/", "sys/module/"+name+"/notes/.note.gnu.build-id")
	id, _ := patch.NoteBuildID([]byte(notes), 4)
	return id
}

// initState returns how far the kernel is with a module: live, coming, going; ""
// when it has none of that name.
func initState(name string) string {
	text, _ := fact("/", "sys/module/"+name+"/initstate")
	return strings.TrimSpace(text)
}

// unload removes a module that is not used any more. The kernel gives its last
// use back a moment after a patch was disabled.
func unload(name string) error {
	for end, pause := time.Now().Add(unloadTime), firstPause; ; pause = min(2*pause, lastPause) {
		err := unix.DeleteModule(name, unix.O_NONBLOCK)
		switch {
		case err == nil, err == unix.ENOENT:
			return nil
		case err != unix.EAGAIN && err != unix.EBUSY || time.Now().After(end):
			number, _ := err.(unix.Errno)
			return &Error{Kind: ErrInUse, Number: number, Detail: "module " + name}
		}
		time.Sleep(pause)
	}
}
