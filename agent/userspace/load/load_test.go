package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/arch/x86/x86asm"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author/insn"
	"livemend.dev/livemend/patch/image"
)

const sighup = syscall.SIGHUP

// roundsEnv says how often all patches go on and off; without it the test is
// short.
const roundsEnv = "LIVEMEND_LOAD_ROUNDS"

// hot are functions that requests call all the time. The first half of each
// line makes level 1, all of it level 2.
var hot = map[string][]string{
	"libssl.so.3":     {"SSL_read", "SSL_write", "SSL_do_handshake", "SSL_get_error", "SSL_shutdown", "SSL_new", "SSL_free"},
	"libcrypto.so.3":  {"EVP_EncryptUpdate", "EVP_DigestUpdate", "CRYPTO_malloc", "CRYPTO_free", "EVP_DigestFinal_ex", "ERR_clear_error", "BIO_read", "BIO_write", "CRYPTO_zalloc", "EVP_CIPHER_CTX_ctrl"},
	"libz.so.1":       {"deflate", "deflateEnd", "crc32_z", "deflateInit2_"},
	"libpcre2-8.so.0": {"pcre2_match_8", "pcre2_get_ovector_pointer_8"},
	"libc.so.6":       {"malloc", "free", "posix_memalign", "recv", "send", "writev", "calloc", "accept4", "epoll_ctl", "close"},
}

// subject is one library with its two patches.
type subject struct {
	*library
	one, two userspace.Patch
}

// need skips the test where it cannot run.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: patching processes needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("skipped: %s is not installed (tools/need.sh load installs it)", p)
		}
	}
}

// subjects copies the stock libraries that nginx maps into the folder and makes
// their patches.
func subjects(t *testing.T, dir string) (list []*subject) {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("ldd", nginx).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != "=>" || hot[f[0]] == nil {
			continue
		}
		l, err := copyLibrary(f[2], dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &subject{library: l}
		names := hot[f[0]]
		if s.one, err = l.makePatch(1, 0, names[:(len(names)+1)/2]); err != nil {
			t.Fatal(err)
		}
		if s.two, err = l.makePatch(2, 256, names); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if len(list) != len(hot) {
		t.Fatalf("nginx maps %d of the %d libraries", len(list), len(hot))
	}
	return list
}

// Every instruction of a moved function is the old one, and everything that is
// relative leads where it led before.
func TestMovedCode(t *testing.T) {
	need(t, "nginx")
	const base, bias = 0x7f0000100000, 0x7f0000400000
	for _, s := range subjects(t, t.TempDir()) {
		for _, p := range []userspace.Patch{s.one, s.two} {
			placed, err := p.File.Place(base, bias)
			if err != nil {
				t.Fatal(err)
			}
			for i := range p.File.Hunks {
				h := &p.File.Hunks[i]
				_, old, err := s.function(h.Name)
				if err != nil {
					t.Fatal(err)
				}
				at := int(h.New) + len(counter)
				if err := sameCode(old, bias+h.Off, placed[at:][:len(old)], base+uint64(at)); err != nil {
					t.Errorf("%s of %s: %v", h.Name, s.name, err)
				}
				count := placed[h.New:][:len(counter)]
				to := uint64(h.New) + 8 + uint64(int64(int32(binary.LittleEndian.Uint32(count[4:]))))
				if first := uint64(p.File.Segments[0].Size); to < first || to >= first+8*uint64(len(p.File.Hunks)) || to%8 != 0 {
					t.Errorf("%s of %s counts at %#x", h.Name, s.name, to)
				}
			}
		}
	}
}

// sameCode compares two pieces of code at their addresses, by what a
// disassembler makes of each.
func sameCode(old []byte, oldAt uint64, moved []byte, movedAt uint64) error {
	for off := 0; off < len(old); {
		if strings.HasPrefix(string(old[off:]), "\xf3\x0f\x1e\xfa") { // endbr64, which x86asm does not know
			off += 4
			continue
		}
		a, err := x86asm.Decode(old[off:], 64)
		if err != nil {
			return err
		}
		b, err := x86asm.Decode(moved[off:], 64)
		if err != nil {
			return err
		}
		bytesA, bytesB := slices.Clone(old[off:off+a.Len]), slices.Clone(moved[off:off+a.Len])
		if a.PCRel == 4 {
			field := func(b []byte) uint64 { return uint64(int64(int32(binary.LittleEndian.Uint32(b[a.PCRelOff:])))) }
			end := uint64(off + a.Len)
			x, y := oldAt+end+field(bytesA), movedAt+end+field(bytesB)
			inside := x >= oldAt && x < oldAt+uint64(len(old)) && y-movedAt == x-oldAt
			if x != y && !(inside && a.Op != x86asm.CALL) {
				return fmt.Errorf("at %#x: leads to %#x, not to %#x", off, y, x)
			}
			clear(bytesA[a.PCRelOff:][:4])
			clear(bytesB[a.PCRelOff:][:4])
		}
		if a.Len != b.Len || !slices.Equal(bytesA, bytesB) {
			return fmt.Errorf("at %#x: % x became % x", off, old[off:off+a.Len], moved[off:off+b.Len])
		}
		off += a.Len
	}
	return nil
}

// Code that would not work elsewhere, or whose first bytes may not change, is
// not moved.
func TestMoveRefuses(t *testing.T) {
	for name, code := range map[string][]byte{
		"short branch out":   {0x55, 0x48, 0x89, 0xe5, 0x90, 0xeb, 0x70, 0xc3},
		"into first bytes":   {0x55, 0x48, 0x89, 0xe5, 0x90, 0xeb, 0xfa, 0xc3},
		"unknown":            {0x55, 0xc5, 0xf8, 0x77, 0x90, 0x90, 0xc3},
		"behind the landing": {0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x90, 0xeb, 0xfa, 0xc3},
	} {
		if _, err := move(code, 0x1000, 0); !errors.Is(err, errFixed) {
			t.Errorf("%s: error %v, want that it cannot be moved", name, err)
		}
	}
	// call out, jump to its own beginning, load from outside
	code := []byte{0xe8, 1, 2, 0, 0, 0xeb, 0xf9, 0x48, 0x8b, 0x05, 4, 3, 0, 0, 0xc3}
	relocs, err := move(code, 0x1000, 64)
	want := []image.Reloc{
		{Off: 65, Base: image.Library, Form: image.Rel32, Addend: 0x1000 + 5 + 0x201 - 4},
		{Off: 74, Base: image.Library, Form: image.Rel32, Addend: 0x1000 + 14 + 0x304 - 4},
	}
	if err != nil || !slices.Equal(relocs, want) {
		t.Errorf("relocations %+v, error %v; want %+v", relocs, err, want)
	}
	var unknown *insn.UnknownError
	if _, err := move([]byte{0x06, 0x90}, 0, 0); !errors.As(err, &unknown) {
		t.Errorf("error %v, want the unknown instruction", err)
	}
}

// rig drives patches on and off.
type rig struct {
	t        *testing.T
	engine   *userspace.Engine
	servers  *servers
	switches int // processes switched
	stop     time.Duration
}

type operation func(context.Context, userspace.Patch) ([]userspace.Result, error)

// do runs one operation and wants one of the outcomes for every process.
func (r *rig) do(op operation, l *subject, p userspace.Patch, want ...userspace.Outcome) {
	r.t.Helper()
	must := slices.DeleteFunc(r.servers.processes(), func(pid int) bool {
		_, maps := mappedAt(r.t, pid, l.path)
		return !maps
	})
	results, err := op(context.Background(), p)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, got := range results {
		r.stop = max(r.stop, got.Stop)
		switch {
		case slices.Contains(want, got.Outcome):
			r.switches++
		case got.Outcome == userspace.Ended && !running(got.PID):
			// an old worker of nginx
		default:
			r.t.Fatalf("%s level %d: %+v, want %v", l.name, p.Level, got, want)
		}
		must = slices.DeleteFunc(must, func(pid int) bool { return pid == got.PID })
	}
	for _, pid := range must {
		if running(pid) {
			r.t.Fatalf("%s level %d: process %d was not found", l.name, p.Level, pid)
		}
	}
}

// round switches both levels of every library on and everything off again.
// Between the two it calls on, with both levels' new code having been run.
func (r *rig) round(list []*subject, on func()) {
	r.t.Helper()
	for _, l := range list {
		r.do(r.engine.Apply, l, l.one, userspace.Patched)
	}
	for _, l := range list {
		r.do(r.engine.Apply, l, l.two, userspace.Patched)
	}
	if on != nil {
		on()
	}
	for _, l := range list {
		r.do(r.engine.Revert, l, l.two, userspace.Reverted)
	}
}

// idle returns the functions of a patch that is on whose new code no process
// has called.
func (r *rig) idle(l *subject, p userspace.Patch) (names []string) {
	r.t.Helper()
	sum := make([]uint64, len(p.File.Hunks))
	for _, pid := range r.servers.processes() {
		bias, ok := mappedAt(r.t, pid, l.path)
		if !ok {
			continue
		}
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			r.t.Fatal(err)
		}
		for i := range sum {
			h := &p.File.Hunks[i]
			n, ok, err := calls(mem, bias, h)
			if err != nil || !ok {
				r.t.Fatalf("%s of %s is not redirected in process %d (error %v)", h.Name, l.name, pid, err)
			}
			sum[i] += n
		}
		if err := mem.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	for i, n := range sum {
		if n == 0 {
			names = append(names, p.File.Hunks[i].Name)
		}
	}
	return names
}

// mappedAt returns where a process has a file, whose first segment is at 0.
func mappedAt(t *testing.T, pid int, path string) (bias uint64, ok bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, false // it ended
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 6 && f[5] == path && f[2] == "00000000" {
			from, _, _ := strings.Cut(f[0], "-")
			if bias, err = strconv.ParseUint(from, 16, 64); err != nil {
				t.Fatal(err)
			}
			return bias, true
		}
	}
	return 0, false
}

// No request fails while patches go on, to their next level and off, and while
// nginx replaces its workers in between.
func TestLoad(t *testing.T) {
	need(t, "nginx", "haproxy", "ldd")
	rounds, quiet, limit := 30, 2*time.Second, 12*time.Second
	if text := os.Getenv(roundsEnv); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 1 {
			t.Fatalf("%s is %q", roundsEnv, text)
		}
		quiet, limit = 30*time.Second, 20*time.Minute
	}
	libraries := t.TempDir()
	list := subjects(t, libraries)
	s := startServers(t, libraries)
	r := &rig{t: t, servers: s, engine: userspace.New(userspace.Options{
		Children: true, Watch: -1, Patience: 20 * time.Second, Answer: 20 * time.Second, StopWait: time.Second,
	})}
	plain := s.under(func() { time.Sleep(quiet) })
	plain.figures("userspace_load_unpatched")

	done, began := 0, time.Now()
	functions := 0
	sum := s.under(func() {
		for ; done < rounds && time.Since(began) < limit; done++ {
			if done%max(rounds/4, 5) == 3 {
				// New workers that start from an unpatched parent are found and
				// patched like the others.
				s.reload()
			}
			r.round(list, nil)
		}
		// The last reload comes while everything is on: the new workers have it
		// from their parent.
		r.round(list, s.reload)
		for _, l := range list {
			r.do(r.engine.Apply, l, l.two, userspace.Patched)
		}
		for _, l := range list {
			var idle []string
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if idle = r.idle(l, l.two); len(idle) == 0 {
					break
				}
			}
			if len(idle) > 0 {
				t.Errorf("the new code of %v of %s was never called", idle, l.name)
			}
			functions += len(l.two.File.Hunks)
			r.do(r.engine.Apply, l, l.one, userspace.Already)
			r.do(r.engine.Revert, l, l.two, userspace.Reverted)
		}
	})
	sum.figures("userspace_load")
	fmt.Printf("figure userspace_load_rounds %d rounds\n", done)
	fmt.Printf("figure userspace_load_switches %d switches\n", r.switches)
	fmt.Printf("figure userspace_load_longest_switch_ms %.2f ms\n", float64(r.stop.Microseconds())/1e3)
	t.Logf("%d rounds in %v, %d libraries, %d functions", done, time.Since(began).Round(time.Millisecond), len(list), functions)

	for i, f := range append(plain.failed, sum.failed...) {
		if i == 10 {
			t.Errorf("and %d more", len(plain.failed)+len(sum.failed)-i)
			break
		}
		t.Errorf("a request failed: %s", f)
	}
	for _, line := range s.crashes() {
		t.Errorf("nginx: %s", line)
	}
	if !s.nginx.alive() || !s.haproxy.alive() {
		t.Errorf("a server ended: nginx runs %v, haproxy runs %v", s.nginx.alive(), s.haproxy.alive())
	}
}
