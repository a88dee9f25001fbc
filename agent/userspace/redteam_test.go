package userspace

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRedTeam has what somebody with a process, a container or a file system
// of their own can try against the agent. docs/peer-cases.md lists it.
func TestRedTeam(t *testing.T) {
	t.Run("hostile library", hostileLibrary)
	t.Run("truncated library", truncatedLibrary)
	t.Run("headers changed after loading", changedHeaders)
	t.Run("forged build-id", forgedBuildID)
	t.Run("exec race", execRace)
	t.Run("thousands of threads", thousandsOfThreads)
	t.Run("thousands of mappings", thousandsOfMappings)
	t.Run("file system that does not answer", quietFileSystem)
	t.Run("user namespace", userNamespace)
}

// hostilePath builds the library that maps hostile files, once.
var hostilePath = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(libPath), "libhostile.so")
	return path, compile(path, "testdata/hostile.c", "-shared", "-fPIC")
})

// startHostile runs the program with a setting of the hostile library.
func startHostile(t *testing.T, setting string) *host {
	t.Helper()
	path, err := hostilePath()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(hostPath)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+path, setting)
	return startProgram(t, cmd)
}

// altered writes a changed copy of the library into a new folder.
func altered(t *testing.T, change func(b []byte)) string {
	t.Helper()
	b, err := os.ReadFile(libPath)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	path := filepath.Join(t.TempDir(), "libtarget.so")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// header returns the first program header of a kind in an ELF file.
func header(t *testing.T, b []byte, kind uint32, flags uint32) []byte {
	t.Helper()
	le := binary.LittleEndian
	at, n := le.Uint64(b[32:]), int(le.Uint16(b[56:]))
	for i := range n {
		ph := b[int(at)+i*elfPhdrSize:]
		if le.Uint32(ph) == kind && le.Uint32(ph[4:])&flags == flags {
			return ph
		}
	}
	t.Fatalf("the library has no program header of kind %d", kind)
	return nil
}

// Files that were made to confuse a reader lie mapped beside the library: the
// process is patched as if they were not there.
func hostileLibrary(t *testing.T) {
	le := binary.LittleEndian
	for name, change := range map[string]func(b []byte){
		"huge count of headers":  func(b []byte) { le.PutUint16(b[56:], 0xffff) },
		"headers far away":       func(b []byte) { le.PutUint64(b[32:], 1<<63) },
		"headers over headers":   func(b []byte) { le.PutUint64(b[32:], 0) },
		"segments that overlap":  func(b []byte) { copy(b[64+elfPhdrSize:], b[64:64+elfPhdrSize]) },
		"segment that wraps":     func(b []byte) { le.PutUint64(header(t, b, segLoad, segExec)[16:], 1<<64-4096) },
		"segment without end":    func(b []byte) { le.PutUint64(header(t, b, segLoad, segExec)[40:], 1<<63) },
		"note without end":       func(b []byte) { le.PutUint64(header(t, b, segNote, 0)[32:], 1<<62) },
		"note with a long name":  func(b []byte) { le.PutUint32(b[le.Uint64(header(t, b, segNote, 0)[8:]):], 1<<32-1) },
		"note with a long value": func(b []byte) { le.PutUint32(b[le.Uint64(header(t, b, segNote, 0)[8:])+4:], 1<<32-1) },
		"sections of nonsense":   func(b []byte) { copy(b[len(b)-2000:], bytes.Repeat([]byte{0xff}, 2000)) },
	} {
		t.Run(name, func(t *testing.T) {
			// A build-id of its own, for the variants that stay well formed.
			path := altered(t, func(b []byte) {
				id := header(t, b, segNote, 0)
				for at := le.Uint64(id[8:]); ; at++ {
					if string(b[at:at+4]) == "GNU\x00" && le.Uint32(b[at-4:]) == noteBuildID {
						b[at+4] ^= 0xff
						break
					}
				}
				change(b)
			})
			h := startHostile(t, "HOSTILE="+path)
			p := makePatch(t, libPath, 1, all(100))
			h.do(testEngine().Apply, p, Patched)
			h.want("f1 1", "101")
		})
	}
}

// The file loses its content while it is mapped, and is read then.
func truncatedLibrary(t *testing.T) {
	for _, size := range []int64{0, 63, 100, 4096} {
		path := altered(t, func([]byte) {})
		h := startHostile(t, "HOSTILE="+path)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		p := makePatch(t, libPath, 1, all(100))
		r := of(t, mustApply(t, p), h.pid())
		// With its first page whole the file still claims to be the library.
		if size == 4096 && r.Outcome != Failed || size < 4096 && r.Outcome != Patched {
			t.Errorf("%d bytes left: %+v", size, r)
		}
		h.want("f2 1", map[Outcome]string{Patched: "101", Failed: "3"}[r.Outcome])
	}
}

func mustApply(t *testing.T, p Patch) []Result {
	t.Helper()
	results, err := testEngine().Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// The owner of a loaded library writes other headers into its file, so that the
// functions seem to be elsewhere: into the middle of others, or of other files.
func changedHeaders(t *testing.T) {
	for name, distance := range map[string]int64{"a page on": 4096, "a page back": -4096, "far on": 1 << 30, "to the start": 0} {
		t.Run(name, func(t *testing.T) {
			path := altered(t, func([]byte) {})
			cmd := exec.Command(hostPath)
			cmd.Env = []string{"LD_LIBRARY_PATH=" + filepath.Dir(path)}
			h := startProgram(t, cmd)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 4096)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			ph := header(t, b, segLoad, segExec)
			at := int64(binary.LittleEndian.Uint64(ph[16:])) + distance
			if distance == 0 {
				at = 0
			}
			binary.LittleEndian.PutUint64(ph[16:], uint64(at))
			if _, err := f.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			before := h.maps()
			p := makePatch(t, libPath, 1, all(100))
			if r := h.do(testEngine().Apply, p, Failed); r.Reason == "" {
				t.Error("there is no reason")
			}
			h.want("f1 1", "2")
			h.want("f8 1", "9")
			if after := h.maps(); len(after) != len(before) {
				t.Errorf("%d mappings, %d before", len(after), len(before))
			}
		})
	}
}

// Another library says that it is the one that the patch is for.
func forgedBuildID(t *testing.T) {
	p := makePatch(t, libPath, 1, all(100))
	// text returns where the code of a function lies in the file.
	text := func(b []byte, name string) uint64 {
		at, _ := symbol(t, libPath, name)
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		s := f.Section(".text")
		return at - s.Addr + s.Offset
	}
	for name, change := range map[string]func(b []byte){
		"another first byte": func(b []byte) { b[text(b, "f3")] ^= 1 },
		// f5 returns 5 more than its argument; here it returns 77 more.
		"another last constant": func(b []byte) {
			at := text(b, "f5")
			i := bytes.Index(b[at:at+32], []byte{0x8d, 0x47, 5})
			if i < 5 {
				t.Fatalf("f5 is % x", b[at:at+32])
			}
			b[int(at)+i+2] = 77
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := altered(t, change)
			cmd := exec.Command(hostPath)
			cmd.Env = []string{"LD_LIBRARY_PATH=" + filepath.Dir(path)}
			h := startProgram(t, cmd)
			honest := startHost(t)
			before := h.maps()
			results := mustApply(t, p)
			if r := of(t, results, h.pid()); r.Outcome != Failed || !strings.Contains(r.Reason, "function f") {
				t.Errorf("%+v, want it refused with the function named", r)
			}
			h.want("f1 1", "2")
			h.want("f8 1", "9")
			if after := h.maps(); len(after) != len(before) {
				t.Errorf("%d mappings, %d before", len(after), len(before))
			}
			if r := of(t, results, honest.pid()); r.Outcome != Patched {
				t.Errorf("%+v, want the honest process patched", r)
			}
		})
	}
	// A process that maps a forgery beside the true one is left alone.
	t.Run("beside the true one", func(t *testing.T) {
		h := startHostile(t, "HOSTILE="+altered(t, func(b []byte) { b[text(b, "f3")] ^= 1 }))
		if r := of(t, mustApply(t, p), h.pid()); r.Outcome != Failed || r.Reason != errTwice.Error() {
			t.Errorf("%+v", r)
		}
		h.want("f1 1", "2")
	})
}

// A program becomes another one all the time: neither is harmed, and whatever
// happened is told as it was. TestExecRace has the single steps.
func execRace(t *testing.T) {
	path := filepath.Join(filepath.Dir(libPath), "execer")
	if err := compile(path, "testdata/execer.c", "-L"+filepath.Dir(libPath), "-ltarget", "-Wl,-rpath,$ORIGIN"); err != nil {
		t.Fatal(err)
	}
	p := makePatch(t, libPath, 1, all(100))
	e, count := testEngine(), make(map[Outcome]int)
	for range 20 { // on a busy machine the engine may lose the race for a whole program
		race(t, e, p, exec.Command(path), count)
		if count[Patched] > 0 {
			break
		}
	}
	t.Logf("outcomes: %v", count)
	if count[Patched] == 0 {
		t.Error("it was never patched")
	}
}

// race applies a patch again and again to a program that becomes another one all
// the time, until it ends, and counts what came of it.
func race(t *testing.T, e *Engine, p Patch, cmd *exec.Cmd, count map[Outcome]int) {
	t.Helper()
	h := startProgram(t, cmd)
	for running := true; running; {
		select {
		case line := <-h.lines:
			if line != "done" {
				t.Errorf("the program said %q", line)
			}
			running = false
		default:
		}
		results, err := e.Apply(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.PID != h.pid() {
				continue
			}
			count[r.Outcome]++
			if r.Outcome == Failed && !strings.HasPrefix(r.Reason, "busy") {
				t.Errorf("%+v", r)
			}
		}
	}
	for range h.lines {
	}
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}

// Thousands of threads stand still for a bounded time, or the process is busy.
func thousandsOfThreads(t *testing.T) {
	const threads = 2500
	h := startHost(t)
	h.want("sleep "+strconv.Itoa(threads), "ok")
	p := makePatch(t, libPath, 1, all(100))
	e := New(Options{Children: true, Watch: -1, StopWait: 5 * time.Second, Answer: 60 * time.Second, Patience: time.Second})
	r := h.do(e.Apply, p, Patched)
	t.Logf("stop %v, %d threads", r.Stop, r.Threads)
	if r.Threads != threads+1 || r.Stop > 5*time.Second {
		t.Errorf("%+v, want %d threads stopped for less than 5 s", r, threads+1)
	}
	h.want("f1 1", "101")
	// With less time than that it is told to be busy, and goes on.
	hasty := New(Options{Children: true, Watch: -1, StopWait: time.Microsecond, Answer: 60 * time.Second, Patience: time.Millisecond})
	if r := of(t, must(hasty.Revert(t.Context(), p))(t), h.pid()); r.Outcome != Reverted && (r.Outcome != Failed || !strings.Contains(r.Reason, "busy")) {
		t.Errorf("%+v, want it busy", r)
	}
	if tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", h.pid())); err != nil || len(tasks) != threads+1 {
		t.Errorf("%d threads are left, %v", len(tasks), err)
	}
	h.want("f2 1", map[bool]string{true: "3", false: "101"}[h.ask("f1 1") == "2"])
}

func must(results []Result, err error) func(t *testing.T) []Result {
	return func(t *testing.T) []Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return results
	}
}

// As many mappings as the kernel gives a process.
func thousandsOfMappings(t *testing.T) {
	h := startHostile(t, "MAPPINGS=60000")
	n := len(h.maps())
	p := makePatch(t, libPath, 1, all(100))
	began := time.Now()
	r := of(t, mustApply(t, p), h.pid())
	t.Logf("%d mappings: %s %s in %v", n, r.Outcome, r.Reason, time.Since(began))
	if r.Outcome != Patched && (r.Outcome != Failed || !strings.Contains(r.Reason, "read-only memory")) {
		t.Errorf("%+v", r)
	}
	h.want("f1 1", map[Outcome]string{Patched: "101", Failed: "2"}[r.Outcome])
}

// A process maps a file of a file system that stops to answer. The others are
// patched, and nothing waits for it for longer than the engine's limit.
func quietFileSystem(t *testing.T) {
	content, err := os.ReadFile(libPath)
	if err != nil {
		t.Fatal(err)
	}
	q, path := mountQuiet(t, content)
	bad, good := startHostile(t, "HOSTILE="+path), startHost(t)
	q.quiet.Store(true)
	p := makePatch(t, libPath, 1, all(100))
	e := New(Options{Children: true, Watch: -1, StopWait: 500 * time.Millisecond, Answer: time.Second})
	var first int64
	for round := range 3 {
		began := time.Now()
		good.do(e.Apply, p, Patched)
		if round == 0 {
			first = int64(q.asked.Load())
		}
		good.want("f1 1", "101")
		good.do(e.Revert, p, Reverted)
		// It is asked once, and its silence is remembered.
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	// The kernel may make several of one question, but no more come later.
	if n := int64(q.asked.Load()); n == 0 || n != first {
		t.Errorf("%d questions wait, %d of them from the first round", n, first)
	}
	bad.want("f8 1", "9")
}

// The owner of a user namespace has a root, mounts and names of their own. The
// name of the library leads to another file there, and so does /proc.
func userNamespace(t *testing.T) {
	dir := t.TempDir()
	copyTree(t, dir)
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/host")
	cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{},
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}}, "/"
	cmd.Env = []string{"LD_LIBRARY_PATH=/"}
	h := startProgram(t, cmd)
	lib := filepath.Join(dir, "libtarget.so")
	if err := os.Remove(lib); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(lib, 0o666); err != nil { // whoever opens it waits
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "proc", "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := makePatch(t, libPath, 1, all(100))
	h.do(testEngine().Apply, p, Patched)
	h.want("f1 1", "101")
	// What the process may do is what it was.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.pid()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "Uid:\t65534\t65534") || !strings.Contains(string(text), "TracerPid:\t0") {
		t.Errorf("status %s", text)
	}
	h.do(testEngine().Revert, p, Reverted)
	h.want("f1 1", "2")
}
