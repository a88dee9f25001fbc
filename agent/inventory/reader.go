package inventory

import (
	"os"
	"syscall"
	"time"
)

// A file system that somebody's own program serves can keep a reader waiting
// for ever. A wait that passes answerTime is given up together with its
// goroutine, and that device is not asked again.
const (
	answerTime = 3 * time.Second
	maxStuck   = 8 // goroutines given up
)

// fileVersion changes when a file's content does.
type fileVersion struct {
	device, inode         uint64
	size                  int64
	modified, changed     int64 // seconds
	modifiedNS, changedNS int64
}

// answer is what a file gave. known is false when it could not be read.
type answer struct {
	id      string
	version fileVersion
	known   bool
}

// reader reads build-ids from files that may not answer. Not for concurrent use.
type reader struct {
	quiet map[string]bool // devices
	stuck int
}

func newReader() *reader { return &reader{quiet: map[string]bool{}} }

// read returns the build-id of the file at path on device; remembered is asked
// before the content is read.
func (r *reader) read(device, path string, remembered func(fileVersion) (string, bool)) answer {
	if r.quiet[device] || r.stuck >= maxStuck {
		return answer{}
	}
	version := make(chan fileVersion, 1)
	content := make(chan answer, 1)
	goOn := make(chan bool, 1)
	go func() {
		f, v, ok := open(path)
		if !ok {
			content <- answer{}
			return
		}
		defer f.Close() // only read
		version <- v
		if !<-goOn {
			return
		}
		id, _ := readBuildID(f) // a file without one is known to have none
		content <- answer{id, v, true}
	}()
	defer func() { goOn <- false }() // ends the goroutine when it is not needed any more
	late := time.NewTimer(answerTime)
	defer late.Stop()
	for {
		select {
		case v := <-version:
			if id, ok := remembered(v); ok {
				return answer{id, v, true}
			}
			goOn <- true
		case a := <-content:
			return a
		case <-late.C:
			r.quiet[device] = true
			r.stuck++
			return answer{}
		}
	}
}

// open opens a regular file without waiting for anything that is none.
func open(path string) (*os.File, fileVersion, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fileVersion{}, false
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		_ = f.Close() // only read
		return nil, fileVersion{}, false
	}
	return f, fileVersion{
		device: st.Dev, inode: st.Ino, size: st.Size,
		modified: st.Mtim.Sec, modifiedNS: st.Mtim.Nsec, changed: st.Ctim.Sec, changedNS: st.Ctim.Nsec,
	}, true
}
