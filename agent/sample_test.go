package agent_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/patch"
)

// sample is a library with a fault, two levels of live patches for it, and a
// program that uses it.
type sample struct {
	t       *testing.T
	program string
	levels  [2]*author.Result
}

// cve names the fault; it cannot be taken for a real one.
const cve = "LIVEMEND-TEST-1"

const source = `
#include <string.h>
static const char *words[] = {"%s"};
__attribute__((noinline)) static int length(int n) { return n < 64 ? n : 64; }
const char *answer(int n) { return length(n) > 0 ? words[0] : ""; }
`

const mainSource = `
#include <stdio.h>
const char *answer(int n);
int main(void) {
	char line[64];
	setvbuf(stdout, NULL, _IONBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin)) puts(answer((int)line[0]));
	return 0;
}
`

var built struct {
	once   sync.Once
	dir    string
	sample sample
}

// newSample builds it once for all tests.
func newSample(t *testing.T) *sample {
	t.Helper()
	built.once.Do(func() {
		files := func(fault string) authortest.Files {
			text := fmt.Sprintf(source, "leaks")
			return authortest.Files{"answer.c": strings.Replace(text, "return length(n) > 0 ? words[0]", fault, 1)}
		}
		stock := files("return length(n) > 0 ? words[0]")
		before := authortest.Objects(t, stock, authortest.Sections()...)
		binary, twin := authortest.Library(t, stock)
		for i, fault := range []string{`return length(n) > 0 ? "fixed at level 1"`, `return length(n) > 0 ? "fixed at level 2"`} {
			after := authortest.Objects(t, files(fault), authortest.Sections()...)
			r, err := author.Build(t.Context(), author.Request{
				Before: before, After: after, Binary: binary, Twin: twin, ID: fmt.Sprintf("U-test-%d", i+1),
				Level: int64(i + 1), Builder: "test", Fixes: []patch.Fix{{CVE: cve}},
			})
			if err != nil {
				t.Fatal(err)
			}
			built.sample.levels[i] = r
		}
		b, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(built.dir, "libanswer.so"), b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(built.dir, "main.c"), []byte(mainSource), 0o600); err != nil {
			t.Fatal(err)
		}
		built.sample.program = filepath.Join(built.dir, "program")
		authortest.Run(t, built.dir, "gcc", "-O1", "-o", "program", "main.c", "-L.", "-l:libanswer.so", "-Wl,-rpath,$ORIGIN")
	})
	s := built.sample
	if s.program == "" {
		t.Fatal("the sample could not be built")
	}
	s.t = t
	return &s
}

// process is a running program.
type process struct {
	t   *testing.T
	pid int
	in  io.WriteCloser
	out *bufio.Reader
}

func (s *sample) start() *process {
	s.t.Helper()
	cmd := exec.Command(s.program)
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { in.Close(); cmd.Wait() })
	p := &process{s.t, cmd.Process.Pid, in, bufio.NewReader(out)}
	if got := p.line(); got != "ready" {
		s.t.Fatalf("the program says %q", got)
	}
	return p
}

func (p *process) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the program ended: %v", err)
	}
	return strings.TrimSpace(s)
}

// answer asks the library.
func (p *process) answer() string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "?\n"); err != nil {
		p.t.Fatalf("the program ended: %v", err)
	}
	return p.line()
}

func (p *process) expect(want string) {
	p.t.Helper()
	if got := p.answer(); got != want {
		p.t.Errorf("process %d answers %q, want %q", p.pid, got, want)
	}
}
