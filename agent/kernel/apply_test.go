package kernel_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/patch"
)

// contextOfAll is for what is made once for all tests.
var contextOfAll = context.Background()

func TestKernels(t *testing.T) {
	for _, k := range kernels {
		t.Run(k.Release, func(t *testing.T) {
			one := build(t, k, "livemend_one", "patch.c", `TEXT "one"`)
			s := boot(t, guest.Config{Kernel: k})
			t.Run("round", func(t *testing.T) { s.t = t; round(s, k, one) })
			t.Run("refused", func(t *testing.T) { s.t = t; refusedModules(s, k, one) })
			t.Run("stalled", func(t *testing.T) { s.t = t; stalledSwitches(s, k, one) })
			t.Run("oops", func(t *testing.T) { s.t = t; oopsAtLoad(s, k, one) })
		})
	}
}

// round loads, replaces and takes off.
func round(s *server, k guest.Kernel, v1 []byte) {
	one := s.give("livemend_one", v1)
	two := s.give("livemend_two", build(s.t, k, "livemend_two", "patch.c", `TEXT "two"`))
	if s.target.Release != k.Release || !s.target.BuildID.Valid() {
		s.t.Errorf("the kernel is %+v", s.target)
	}
	s.revert(one, "absent")
	s.apply(one, "patched")
	s.shows("one")
	s.apply(one, "already")
	if err := s.Remove("livemend_one"); !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EBUSY) {
		s.t.Errorf("removing a patch in force by hand: %v, want EAGAIN", err)
	}
	if r := s.apply(two, "patched"); !slices.Equal(r.Result.Replaced, []string{"livemend_one"}) || len(r.Result.Kept) != 0 {
		s.t.Errorf("it replaced %q and kept %q", r.Result.Replaced, r.Result.Kept)
	}
	s.shows("two")
	s.onlyModules("livemend_two")
	list := s.do(request{Do: "status"}).Loaded
	if len(list) != 1 || list[0].Name != "livemend_two" || !list[0].Enabled || list[0].Switching || !list[0].BuildID.Valid() {
		s.t.Errorf("Status = %+v", list)
	}
	s.revert(one, "absent")
	s.revert(two, "reverted")
	s.shows("")
	s.onlyModules()
}

// refusedModules gives the agent what must not be loaded. Beside some, the kernel
// by itself shows why the agent has to look.
func refusedModules(s *server, k guest.Kernel, good []byte) {
	t := s.t
	magic := k.Release + " SMP preempt mod_unload modversions"
	neighbour := changed(t, good, "vermagic="+magic, "vermagic="+nextTo(k.Release)+" SMP preempt mod_unload modversions")
	bare := strip(t, good, "__versions")
	for name, test := range map[string]struct {
		module []byte
		want   string
	}{
		"half":       {good[:len(good)/2], "module"},
		"plain":      {build(t, k, "livemend_target", "target.c"), "module"},
		"neighbour":  {neighbour, "other kernel"},
		"preempt":    {changed(t, good, magic, strings.Replace(magic, "preempt", "prXempt", 1)), "other kernel"},
		"unload":     {changed(t, good, magic, strings.Replace(magic, "mod_unload", "mod_unloaX", 1)), "magic"},
		"bare":       {bare, "no checksums"},
		"symbol":     {build(t, k, "livemend_symbol", "patch.c", `TEXT "x"`, `OLD "no_such_function_anywhere"`), "symbol"},
		"unresolved": {build(t, k, "livemend_missing", "patch.c", `TEXT "x"`, "MISSING"), missing(k)},
		"checksums":  {otherChecksums(t, good), "checksums"},
		"malformed":  {noSymbols(t, good), "malformed"},
		"dependency": {needs(t, good, "livemend_target"), "dependency"},
	} {
		s.apply(s.give("refused-"+name, test.module), test.want)
		s.onlyModules()
	}
	wrong := s.target
	wrong.BuildID = patch.BuildID(strings.Repeat("ab", 20))
	s.want(request{Do: "apply", Module: s.give("livemend_one", good), Target: wrong}, "other kernel")

	// The kernel itself takes both of these.
	for _, m := range [][]byte{neighbour, bare} {
		if err := s.Insert(m, ""); err != nil {
			t.Errorf("the kernel refused what it is known to load: %v", err)
		}
		s.shows("one")
		s.do(request{Do: "revert", Module: s.give("by-hand", m)})
		s.shows("")
	}
	// A name is no identity.
	s.apply(s.give("livemend_one", good), "patched")
	s.apply(s.give("other", build(t, k, "livemend_one", "patch.c", `TEXT "another"`)), "name taken")
	s.revert(s.give("other", build(t, k, "livemend_one", "patch.c", `TEXT "another"`)), "absent")
	s.shows("one")
	s.revert(s.give("livemend_one", good), "reverted")
}

// missing is what happens to a module that uses what the kernel does not have:
// with checksums for everything else, one kernel looks for its checksum first.
func missing(guest.Kernel) string { return "unresolved" }

// nextTo is the release of another kernel, in as many bytes.
func nextTo(release string) string {
	if before, after, ok := strings.Cut(release, "-47-"); ok {
		return before + "-48-" + after
	}
	return strings.Replace(release, ".117", ".118", 1)
}

// stalledSwitches has tasks sleep in the functions that are replaced.
func stalledSwitches(s *server, k guest.Kernel, good []byte) {
	t := s.t
	if err := s.Insert(build(t, k, "livemend_target", "target.c"), ""); err != nil {
		t.Fatal(err)
	}
	one := s.give("livemend_one", good)
	woken := s.give("livemend_s", build(t, k, "livemend_s", "object.c", `OLD "show_s"`))
	unwoken := s.give("livemend_d", build(t, k, "livemend_d", "object.c", `OLD "show_d"`))
	sleepy := s.give("livemend_sleepy", build(t, k, "livemend_sleepy", "object.c", `OLD "show_d"`, "SLEEP"))
	short := kernel.Options{SwitchTime: 2 * time.Second}

	// One that can be woken holds it up, unless it may be nudged.
	sleeper := s.sleep("/proc/livemend_s", "show_s")
	r := s.want(request{Do: "apply", Module: woken, Options: short}, "stalled")
	if len(r.Tasks) != 1 || r.Tasks[0].PID != sleeper.PID || r.Tasks[0].State != 'S' || r.Tasks[0].Command != "livemend-testag" || !strings.Contains(r.Tasks[0].Stack, "show_s+") {
		t.Errorf("the tasks are %+v, want process %d in show_s", r.Tasks, sleeper.PID)
	}
	s.onlyModules("livemend_target")
	r = s.want(request{Do: "apply", Module: woken, Options: kernel.Options{NudgeAfter: 300 * time.Millisecond}}, "patched")
	if r.Result.Nudged != 1 || r.Result.Took > 15*time.Second {
		t.Errorf("%d tasks were nudged, and it took %v", r.Result.Nudged, r.Result.Took)
	}
	s.end(sleeper)
	s.revert(woken, "reverted")

	// One that cannot be woken does so whatever is done, and nothing else goes on.
	sleeper = s.sleep("/proc/livemend_d", "show_d")
	waiting := s.Start(s.command(request{Do: "apply", Module: unwoken, Options: kernel.Options{SwitchTime: 6 * time.Second, NudgeAfter: 100 * time.Millisecond}}))
	s.until("/sys/kernel/livepatch/livemend_d/transition", "1")
	s.apply(one, "busy")
	result, err := waiting.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if r := s.read(result); r.was() != "stalled" || len(r.Tasks) != 1 || r.Tasks[0].PID != sleeper.PID || r.Tasks[0].State != 'D' {
		t.Errorf("it was %q with tasks %+v: %s", r.was(), r.Tasks, r.Error)
	}
	s.onlyModules("livemend_target")

	// Whoever runs out of patience gets the old state back.
	r = s.do(request{Do: "apply", Module: unwoken, Patience: time.Second})
	if r.was() != "stalled" || !strings.Contains(r.Error, context.DeadlineExceeded.Error()) {
		t.Errorf("out of patience: %q: %s", r.was(), r.Error)
	}
	s.onlyModules("livemend_target")

	// When the sleep ends, so does the switch.
	waiting = s.Start(s.command(request{Do: "apply", Module: unwoken}))
	s.until("/sys/kernel/livepatch/livemend_d/transition", "1")
	s.release(sleeper)
	if result, err = waiting.Wait(); err != nil {
		t.Fatal(err)
	}
	if r := s.read(result); r.was() != "patched" {
		t.Errorf("it was %q: %s", r.was(), r.Error)
	}
	s.revert(unwoken, "reverted")

	// A task in the new function keeps it.
	s.apply(sleepy, "patched")
	sleeper = s.sleep("/proc/livemend_d", "new_show")
	if r := s.want(request{Do: "revert", Module: sleepy, Options: short}, "kept"); len(r.Tasks) != 1 || r.Tasks[0].PID != sleeper.PID {
		t.Errorf("the tasks are %+v", r.Tasks)
	}
	s.release(sleeper)
	s.revert(sleepy, "reverted")

	// After a forced switch nothing is unloaded, whoever forgets about it.
	sleeper = s.sleep("/proc/livemend_d", "show_d")
	r = s.want(request{Do: "apply", Module: unwoken, Options: kernel.Options{SwitchTime: time.Second, Force: true}}, "patched")
	if !r.Result.Forced || len(r.Result.Tasks) != 1 {
		t.Errorf("the result is %+v", r.Result)
	}
	s.revert(unwoken, "forced")
	s.want(request{Do: "revert", Module: unwoken, Options: kernel.Options{RunDir: "/run/other"}}, "forced")
	s.release(sleeper)
	s.revert(unwoken, "forced")
	if r := s.apply(one, "patched"); !slices.Equal(r.Result.Kept, []string{"livemend_d"}) {
		t.Errorf("it kept %q", r.Result.Kept)
	}
	s.onlyModules("livemend_d", "livemend_one", "livemend_target")
}

// sleep starts a process that sleeps in the kernel, and returns when it does.
func (s *server) sleep(file, function string) *guest.Process {
	s.t.Helper()
	b := s.command(request{Do: "apply", Module: file})
	p := s.Start(b)
	s.until("/proc/"+strconv.Itoa(p.PID)+"/stack", function+"+")
	return p
}

// until waits until a file of the guest holds a text. Nobody tells when.
func (s *server) until(file, text string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, _ := s.Get(file) // not there yet
		if bytes.Contains(b, []byte(text)) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s never held %q; it holds %q", file, text, b)
		}
	}
}

func (s *server) end(p *guest.Process) {
	s.t.Helper()
	if err := p.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		s.t.Fatal(err)
	}
}

// release ends all sleep, waits for the sleeper and makes the next one possible.
func (s *server) release(p *guest.Process) {
	s.t.Helper()
	s.Put("/sys/module/livemend_target/parameters/go", []byte("1"))
	if _, err := p.Wait(); err != nil {
		s.t.Fatal(err)
	}
	s.Put("/sys/module/livemend_target/parameters/go", []byte("0"))
}

// oopsAtLoad loads a patch that fails inside the kernel while it is loaded.
func oopsAtLoad(s *server, k guest.Kernel, good []byte) {
	bad := s.give("livemend_oops", build(s.t, k, "livemend_oops", "patch.c", `TEXT "oops"`, "INIT *(int *volatile *)NULL = NULL"))
	start := time.Now()
	r := s.apply(bad, "oops")
	if took := time.Since(start); took > 30*time.Second || !strings.Contains(r.Error, "restart this server") {
		s.t.Errorf("it took %v: %s", took, r.Error)
	}
	s.apply(bad, "reboot needed")
	slow := s.give("livemend_slow", build(s.t, k, "livemend_slow", "patch.c", `TEXT "slow"`, `INIT pr_info("livemend_slow is starting\n"); msleep(600000)`))
	s.want(request{Do: "apply", Module: slow, Options: kernel.Options{LoadTime: time.Second}}, "hung")
	s.apply(slow, "reboot needed")
	s.apply(s.give("livemend_two", build(s.t, k, "livemend_two", "patch.c", `TEXT "two"`)), "patched")
	s.shows("two")
	if left := s.Run(guest.Command{Args: []string{agentPath}, Stdin: []byte(`{"Do":"status"}`)}); left.Exit != 0 {
		s.t.Errorf("the agent cannot go on: %s", left.Stderr)
	}
}

// TestProcessors switches on a machine with two processors, where the idle one
// takes its time.
func TestProcessors(t *testing.T) {
	for _, k := range kernels {
		t.Run(k.Release, func(t *testing.T) {
			s := boot(t, guest.Config{Kernel: k, SMP: 2})
			one := s.give("livemend_one", build(t, k, "livemend_one", "patch.c", `TEXT "one"`))
			s.apply(one, "patched")
			s.shows("one")
			s.revert(one, "reverted")
			s.onlyModules()
		})
	}
}

// TestUnsigned starts kernels that load signed modules only, and one that was
// told to load no live patch.
func TestUnsigned(t *testing.T) {
	for _, k := range kernels {
		t.Run(k.Release, func(t *testing.T) {
			one := build(t, k, "livemend_one", "patch.c", `TEXT "one"`)
			for _, test := range []struct {
				word, want string
				number     error
			}{
				{"lockdown=integrity", "lockdown", syscall.EPERM},
				{"module.sig_enforce=1", "signature", syscall.EKEYREJECTED},
				{"livemend=off", "disabled", nil},
			} {
				s := boot(t, guest.Config{Kernel: k, Append: test.word})
				s.apply(s.give("livemend_one", one), test.want)
				s.onlyModules()
				if err := s.Insert(one, ""); !errors.Is(err, test.number) {
					t.Errorf("%s: the kernel says %v, want %v", test.word, err, test.number)
				}
				s.Kill()
			}
		})
	}
}

// strip returns the module without a section.
func strip(t testing.TB, b []byte, section string) []byte {
	t.Helper()
	return objcopy(t, b, "--remove-section", section)
}

// needs returns the module with another one that it says it needs.
func needs(t testing.TB, b []byte, name string) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "info")
	if err := os.WriteFile(path, bytes.Replace(info, []byte("depends=\x00"), []byte("depends="+name+"\x00"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return objcopy(t, b, "--update-section", ".modinfo="+path)
}

func objcopy(t testing.TB, b []byte, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.ko")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "objcopy", append(args, path)...).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// otherChecksums returns the module with one wrong checksum.
func otherChecksums(t testing.TB, b []byte) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(b)
	b[f.Section("__versions").Offset] ^= 0xff
	return b
}

// noSymbols returns the module with a symbol table that is none.
func noSymbols(t testing.TB, b []byte) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(b)
	at := binary.LittleEndian.Uint64(b[40:])
	for i, s := range f.Sections {
		if s.Type == elf.SHT_SYMTAB {
			binary.LittleEndian.PutUint32(b[at+uint64(i)*64+4:], uint32(elf.SHT_NULL)+1)
		}
	}
	return b
}
