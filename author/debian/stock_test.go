package debian_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/debian"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

const (
	heavyEnv = "LIVEMEND_TEST_DEBIAN"      // 1: fetch and build real packages
	workEnv  = "LIVEMEND_TEST_DEBIAN_WORK" // folder to go on in; the default is a fresh one
)

// The patch for a real update, built from the distribution's own sources, has
// the five functions that the update changes, and works in the distribution's
// Python with the distribution's library.
func TestXZ(t *testing.T) {
	if os.Getenv(heavyEnv) != "1" {
		t.Skip("fetches and builds xz-utils three times, which takes minutes and the network; set " + heavyEnv + "=1 to run it")
	}
	if os.Geteuid() != 0 {
		t.Skip("a throw-away root needs root")
	}
	work := os.Getenv(workEnv)
	if work == "" {
		work = t.TempDir()
	}
	options := debian.Options{
		Package: "xz-utils", From: "5.4.1-1+deb12u1", To: "5.4.1-1+deb12u2", Library: "liblzma.so.5",
		Work: filepath.Join(work, "xz-utils"), Progress: func(line string) { t.Log(line) },
		Request: author.Request{ID: "U-xz-test", Level: 1, Fixes: []patch.Fix{{CVE: "GHSA-5qpq-xqfv-j9pg"}}},
	}
	result, err := debian.Build(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range result.Metadata.Functions {
		if !strings.HasSuffix(f.Name, ".cold") {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	want := []string{"alone_decode", "lzip_decode", "lzma_lz_decoder_init", "microlzma_decode", "stream_decode_mt"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Fatalf("functions of the patch (-want +got):\n%s", diff)
	}
	again, err := debian.Build(t.Context(), options)
	if err != nil || !bytes.Equal(again.Artifact, result.Artifact) {
		t.Errorf("built again it is another patch (%v)", err)
	}
	applyToPython(t, result, filepath.Join(options.Work, "stock", "liblzma.so.5.4.1"))
}

// program answers each line on its input after a round of work.
const program = `
import lzma, sys
data = bytes(range(256)) * 4000
packed = {f: lzma.compress(data, format=f) for f in (lzma.FORMAT_XZ, lzma.FORMAT_ALONE)}
print("ready", flush=True)
for line in sys.stdin:
    ok = all(lzma.decompress(p, format=f) == data for f, p in packed.items())
    print("right" if ok else "wrong", flush=True)
`

// python is a running interpreter. A shell stands between it and the test, as
// the agent leaves its own children alone.
type python struct {
	t   *testing.T
	pid int
	in  io.WriteCloser
	out *bufio.Reader
}

func startPython(t *testing.T, library string) *python {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if _, err := os.Stat(interpreter); err != nil {
		t.Skip("the distribution's python3 is not installed: ", err)
	}
	dir := t.TempDir()
	if err := os.Symlink(library, filepath.Join(dir, "liblzma.so.5")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p := &python{t: t}
	const shell = `exec 3<&0; "$0" -c "$1" <&3 & echo $!; wait`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", shell, interpreter, program)
	cmd.Env = []string{"LD_LIBRARY_PATH=" + dir}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		// It was killed on purpose.
		_ = cmd.Wait()
	})
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	p.expect("ready")
	return p
}

func (p *python) ask() {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "go\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *python) expect(want string) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		p.t.Fatalf("python says %q (%v), want %s", line, err, want)
	}
}

func applyToPython(t *testing.T, result *author.Result, library string) {
	t.Helper()
	p := startPython(t, library)
	p.ask()
	p.expect("right")
	f, err := image.Decode(result.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	engine := userspace.New(userspace.Options{})
	live := userspace.Patch{File: f, SHA256: sha256.Sum256(result.Artifact), Level: 1}
	one := func(results []userspace.Result, err error) userspace.Result {
		t.Helper()
		for _, r := range results {
			if r.PID == p.pid && err == nil {
				return r
			}
		}
		t.Fatalf("python is not among %v (%v)", results, err)
		return userspace.Result{}
	}
	began := time.Now()
	r := one(engine.Apply(t.Context(), live))
	if r.Outcome != userspace.Patched {
		t.Fatalf("%s: %s", r.Outcome, r.Reason)
	}
	t.Logf("applied in %s; stopped for %s, before that one thread for %s", time.Since(began), r.Stop, r.Map)
	entry := newCode(t, p.pid, library, f, "alone_decode")
	p.ask()
	reached(t, p.pid, entry)
	p.expect("right")
	if r := one(engine.Revert(t.Context(), live)); r.Outcome != userspace.Reverted {
		t.Fatalf("undo: %s: %s", r.Outcome, r.Reason)
	}
	p.ask()
	p.expect("right")
}

// newCode follows the jump at the entry of a patched function.
func newCode(t *testing.T, pid int, library string, f *image.File, name string) int64 {
	t.Helper()
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var bias int64
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) == 6 && fields[2] == "00000000" && fields[5] == real {
			if _, err := fmt.Sscanf(fields[0], "%x-", &bias); err != nil {
				t.Fatal(err)
			}
		}
	}
	i := slices.IndexFunc(f.Hunks, func(h image.Hunk) bool { return h.Name == name })
	if bias == 0 || i < 0 {
		t.Fatalf("%s is not mapped, or %s not patched", real, name)
	}
	at := bias + int64(f.Hunks[i].Off) + int64(f.Hunks[i].JumpOff())
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	var jump [5]byte
	_, err = mem.ReadAt(jump[:], at)
	if err := errors.Join(err, mem.Close()); err != nil {
		t.Fatal(err)
	}
	if jump[0] != 0xe9 {
		t.Fatalf("%s begins with % x, not with a jump", name, jump)
	}
	rel := int32(uint32(jump[1]) | uint32(jump[2])<<8 | uint32(jump[3])<<16 | uint32(jump[4])<<24)
	return at + 5 + int64(rel)
}

// reached waits, as a debugger does, until the process runs the code at addr.
func reached(t *testing.T, pid int, addr int64) {
	t.Helper()
	runtime.LockOSThread() // a tracer is one thread
	defer runtime.UnlockOSThread()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	stopped := func() (status syscall.WaitStatus) {
		t.Helper()
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		must("wait", err)
		if !status.Stopped() {
			t.Fatalf("the process ended: %v", status)
		}
		return status
	}
	must("attach", syscall.PtraceAttach(pid))
	stopped()
	old := make([]byte, 1)
	_, err := syscall.PtracePeekText(pid, uintptr(addr), old)
	must("read code", err)
	_, err = syscall.PtracePokeText(pid, uintptr(addr), []byte{0xcc})
	must("set the breakpoint", err)
	must("go on", syscall.PtraceCont(pid, 0))
	if status := stopped(); status.StopSignal() != syscall.SIGTRAP {
		t.Fatalf("stopped by %v, not by the breakpoint", status.StopSignal())
	}
	var regs syscall.PtraceRegs
	must("read registers", syscall.PtraceGetRegs(pid, &regs))
	if int64(regs.Rip) != addr+1 {
		t.Fatalf("stopped at %#x, not at %#x", regs.Rip, addr+1)
	}
	regs.Rip--
	must("set registers", syscall.PtraceSetRegs(pid, &regs))
	_, err = syscall.PtracePokeText(pid, uintptr(addr), old)
	must("take the breakpoint away", err)
	must("detach", syscall.PtraceDetach(pid))
}
