package userspace

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

var (
	hostPath string // the program that is patched
	libPath  string // the library in it
)

func TestMain(m *testing.M) {
	if pid := os.Getenv(traceEnv); pid != "" {
		os.Exit(traceAndWait(pid))
	}
	dir, err := os.MkdirTemp("", "userspace")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	libPath, hostPath = filepath.Join(dir, "libtarget.so"), filepath.Join(dir, "host")
	landing := filepath.Join(dir, "landing.o")
	if err := compile(landing, "testdata/landing.c", "-c", "-fPIC", "-fcf-protection=branch"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else if err := compile(libPath, "testdata/lib.c", landing, "-shared", "-fPIC"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else if err := compile(hostPath, "testdata/host.c", "-L"+dir, "-ltarget", "-lpthread", "-Wl,-rpath,$ORIGIN"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// compile runs gcc. Each binary gets a build-id of its own, so that tests which
// run at the same time elsewhere do not meet each other's processes.
func compile(out, source string, args ...string) error {
	id := make([]byte, 20)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	args = append([]string{"-O1", "-Wall", "-o", out, source}, args...)
	args = append(args, "-Wl,--build-id=0x"+hexText(id))
	if text, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc %v: %v\n%s", args, err, text)
	}
	return nil
}

// host is one running program.
type host struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

// startHost runs the program; it ends with the test.
func startHost(t testing.TB, args ...string) *host {
	t.Helper()
	return startProgram(t, exec.Command(hostPath, args...))
}

func startProgram(t testing.TB, cmd *exec.Cmd) *host {
	t.Helper()
	h := &host{t: t, cmd: cmd, lines: make(chan string, 16)}
	var err error
	if h.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			h.lines <- s.Text()
		}
	}()
	t.Cleanup(h.end)
	if got := h.line(); got != "ready" {
		t.Fatalf("the program said %q, not that it is ready", got)
	}
	return h
}

// end kills the program and waits for it.
func (h *host) end() {
	if h.cmd.ProcessState != nil {
		return
	}
	if err := h.cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
		h.t.Error(err)
	}
	for range h.lines { // until its standard output is closed
	}
	if err := h.cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") && !strings.Contains(err.Error(), "terminated") {
		h.t.Error(err)
	}
}

func (h *host) pid() int { return h.cmd.Process.Pid }

func (h *host) line() string {
	h.t.Helper()
	select {
	case s, ok := <-h.lines:
		if !ok {
			h.t.Fatal("the program ended")
		}
		return s
	case <-time.After(20 * time.Second):
		h.t.Fatal("the program does not answer")
	}
	return ""
}

// ask sends one command and returns the answer.
func (h *host) ask(command string) string {
	h.t.Helper()
	if _, err := io.WriteString(h.in, command+"\n"); err != nil {
		h.t.Fatal(err)
	}
	return h.line()
}

// want sends one command and checks the answer.
func (h *host) want(command, answer string) {
	h.t.Helper()
	if got := h.ask(command); got != answer {
		h.t.Errorf("%s: answer %q, want %q", command, got, answer)
	}
}

// symbol returns address and content of a function in an ELF file.
func symbol(t testing.TB, path, name string) (uint64, []byte) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == name {
			section := f.Sections[s.Section]
			code := make([]byte, s.Size)
			if _, err := section.ReadAt(code, int64(s.Value-section.Addr)); err != nil {
				t.Fatal(err)
			}
			return s.Value, code
		}
	}
	t.Fatalf("%s has no function %s", path, name)
	return 0, nil
}

func buildID(t testing.TB, path string) patch.BuildID {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := readObject(f)
	if err != nil {
		t.Fatal(err)
	}
	return o.buildID
}

// add returns the code of a function that returns its argument plus n.
func add(n byte) []byte { return []byte{0x8d, 0x47, n, 0xc3} } // lea eax, [rdi+n]; ret

// makePatch builds a patch with the new code for the functions by hand. Besides
// the code it has a constant and a variable segment, to see them mapped.
func makePatch(t testing.TB, path string, level int64, code map[string][]byte) Patch {
	t.Helper()
	f := &image.File{BuildID: buildID(t, path), Arch: "amd64"}
	var text []byte
	for name, body := range code {
		off, old := symbol(t, path, name)
		h := image.Hunk{Name: name, Off: off, Size: uint32(len(old)), OldHash: sha256.Sum256(old), New: uint32(len(text))}
		copy(h.Entry[:], old)
		f.Hunks = append(f.Hunks, h)
		text = append(text, body...)
		for len(text)%16 != 0 {
			text = append(text, 0xcc)
		}
	}
	slices.SortFunc(f.Hunks, func(a, b image.Hunk) int { return cmpUp(a.Off, b.Off) })
	f.Segments = []image.Segment{
		{Prot: image.ReadExec, Size: uint32(len(text)+4095) &^ 4095, Data: text},
		{Prot: image.ReadOnly, Size: 4096, Data: []byte("constants")},
		{Prot: image.ReadWrite, Size: 4096, Data: make([]byte, 16)},
	}
	roStart := f.Segments[0].Size
	f.Relocs = []image.Reloc{
		{Off: roStart + 16, Base: image.Library, Form: image.Abs64, Addend: int64(f.Hunks[0].Off)},
		{Off: roStart + 24, Base: image.Image, Form: image.Rel32, Addend: 8},
	}
	artifact, err := image.Encode(f)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := image.Decode(artifact)
	if err != nil {
		t.Fatal(err)
	}
	return Patch{File: decoded, SHA256: sha256.Sum256(artifact), Level: level}
}

// testEngine does not lose time with watching.
func testEngine() *Engine {
	return New(Options{Children: true, Watch: -1, StopWait: 500 * time.Millisecond, Answer: 20 * time.Second})
}

// of returns the result for one process.
func of(t testing.TB, results []Result, pid int) Result {
	t.Helper()
	for _, r := range results {
		if r.PID == pid {
			return r
		}
	}
	t.Fatalf("there is no result for process %d in %+v", pid, results)
	return Result{}
}

type operation func(context.Context, Patch) ([]Result, error)

// do runs one operation and checks the outcome for the program.
func (h *host) do(op operation, p Patch, want Outcome) Result {
	h.t.Helper()
	results, err := op(context.Background(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	r := of(h.t, results, h.pid())
	if r.Outcome != want {
		h.t.Fatalf("outcome %q (%s), want %q", r.Outcome, r.Reason, want)
	}
	return r
}

// maps returns the program's mappings.
func (h *host) maps() []mapping {
	h.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", h.pid()))
	if err != nil {
		h.t.Fatal(err)
	}
	ms, err := parseMaps(text, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return ms
}
