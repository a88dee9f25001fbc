package kernel_test

import (
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/internal/hextext"
)

// machine is one server whose disk outlives its boots.
type machine struct {
	t      *testing.T
	kernel guest.Kernel
	disk   string
	now    *server
}

func newMachine(t *testing.T, k guest.Kernel) *machine {
	return &machine{t, k, guest.Disk(t), nil}
}

// boot starts the server, again if it ran, after it has gone down in whatever way.
func (m *machine) boot() *server {
	m.t.Helper()
	m.now = boot(m.t, guest.Config{Kernel: m.kernel, Disk: m.disk})
	return m.now
}

// found starts the agent and compares what it put into quarantine so far, and
// how many crashes it counts.
func (m *machine) found(strikes int64, want ...string) {
	m.t.Helper()
	r := m.now.do(request{Do: "start"})
	var got []string
	for _, q := range r.Quarantined {
		got = append(got, fromSum(m.t, q.SHA256))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") || r.Intent.Strikes != strikes || r.Intent.Phase != "" || r.Error != "" {
		m.t.Errorf("quarantine holds %q, want %q; the record is %+v, want %d strikes; %s", got, want, r.Intent, strikes, r.Error)
	}
	m.now.onlyModules()
}

// keeps has the agent apply a patch and stay.
func (s *server) keeps(do, module string, probation time.Duration) *guest.Process {
	s.t.Helper()
	return s.Start(s.command(request{Do: do, Module: module, Probation: probation}))
}

// TestCrashes takes a server down at every moment at which a patch is not yet
// trusted, and looks what its next boot does.
func TestCrashes(t *testing.T) {
	for _, k := range kernels {
		t.Run(k.Release, func(t *testing.T) {
			good := build(t, k, "livemend_one", "patch.c", `TEXT "one"`)
			slow := build(t, k, "livemend_slow", "patch.c", `TEXT "slow"`, `INIT pr_info("livemend_slow is starting\n"); msleep(600000)`)
			panics := build(t, k, "livemend_panic", "patch.c", `TEXT "panic"`, `INIT panic("at load")`)
			late := build(t, k, "livemend_late", "patch.c", `TEXT "late"`, `BODY panic("at the first call")`)
			warns := build(t, k, "livemend_warn", "patch.c", `TEXT "warn"`, `BODY WARN(1, "not right")`)
			fails := build(t, k, "livemend_fails", "patch.c", `TEXT "fails"`, "BODY *(int *volatile *)NULL = NULL")
			oops := build(t, k, "livemend_oops", "patch.c", `TEXT "oops"`, "INIT *(int *volatile *)NULL = NULL")
			m := newMachine(t, k)

			// The power goes when the intent is durable and the kernel has nothing yet.
			s := m.boot()
			m.found(0)
			s.Put("/run/hold", nil)
			s.keeps("keep", s.give("held", good), 0)
			s.Expect("testagent: held before loading")
			s.onlyModules()
			s.Kill()
			s = m.boot()
			m.found(1, "held")
			s.want(request{Do: "keep", Module: s.give("held", good)}, "quarantine")

			// The power goes while the kernel loads it: the second crash, and the end.
			s.keeps("keep", s.give("slow", slow), 0)
			s.Expect("livemend_slow is starting")
			s.Kill()
			s = m.boot()
			m.found(2, "held", "slow")
			s.want(request{Do: "keep", Module: s.give("good", good)}, "halted")
			s.onlyModules()
			s.do(request{Do: "clear"})
			m.found(0, "held", "slow")

			// The power goes while it proves itself.
			s.keeps("keep", s.give("proving", good), 0)
			s.Expect("testagent: applied livemend_one")
			s.shows("one")
			s.Kill()
			s = m.boot()
			m.found(1, "held", "slow", "proving")
			s.do(request{Do: "clear"})

			// The kernel panics while it loads it; and the power goes while the next boot
			// puts it into quarantine.
			s.keeps("keep", s.give("panic", panics), 0)
			s.Ended()
			s = m.boot()
			s.keeps("start-held", "", 0)
			s.Expect("testagent: held in quarantine")
			s.Kill()
			s = m.boot()
			m.found(1, "held", "slow", "proving", "panic")
			s.want(request{Do: "keep", Module: s.give("panic", panics)}, "quarantine")
			s.do(request{Do: "clear"})

			// The kernel panics when the patched function is first called, long after
			// the switch: no boot loop.
			s.keeps("keep", s.give("late", late), 0)
			s.Expect("testagent: applied livemend_late")
			if _, err := s.Get("/proc/cmdline"); err == nil {
				t.Error("the sick patch did not bring the machine down")
			}
			s.Ended()
			s = m.boot()
			m.found(1, "held", "slow", "proving", "panic", "late")
			s.want(request{Do: "keep", Module: s.give("late", late)}, "quarantine")
			s.shows("")
			s.do(request{Do: "clear"})

			// A shutdown in good order speaks for nothing and against nothing.
			p := s.keeps("keep", s.give("stopped", good), 0)
			s.Expect("testagent: applied livemend_one")
			s.do(request{Do: "term", Number: p.PID})
			if r, err := p.Wait(); err != nil || r.Exit != 0 {
				t.Errorf("the agent ended with %+v, %v", r, err)
			}
			s.PowerOff()
			s = m.boot()
			m.found(0, "held", "slow", "proving", "panic", "late")

			// One that has proved itself is not blamed for what happens later; and the
			// power goes in the very moment in which it has.
			s.keeps("keep-accepted", s.give("accepted", good), time.Second)
			s.Expect("testagent: accepted")
			s.shows("one")
			s.Kill()
			s = m.boot()
			m.found(0, "held", "slow", "proving", "panic", "late")

			// A kernel that complains convicts the patch, which comes off at once.
			p = s.keeps("keep-condemned", s.give("warns", warns), 0)
			s.Expect("testagent: applied livemend_warn")
			s.shows("warn")
			result, err := p.Wait()
			if err != nil {
				t.Fatal(err)
			}
			r := s.read(result)
			if last := r.Quarantined[len(r.Quarantined)-1]; fromSum(t, last.SHA256) != "warns" || !strings.Contains(last.Reason, "WARNING") || r.Intent.Phase != "" {
				t.Errorf("quarantine ends with %+v, the record is %+v", last, r.Intent)
			}
			s.shows("")
			s.onlyModules()

			// So does one whose new function fails, when somebody calls it.
			p = s.keeps("keep-condemned", s.give("fails", fails), 0)
			s.Expect("testagent: applied livemend_fails")
			s.Start(s.command(request{Do: "apply", Module: "/proc/cmdline"})) // it hangs, with a thread gone
			if result, err = p.Wait(); err != nil {
				t.Fatal(err)
			}
			if r = s.read(result); fromSum(t, r.Quarantined[len(r.Quarantined)-1].SHA256) != "fails" {
				t.Errorf("quarantine is %+v", r.Quarantined)
			}
			s.onlyModules()

			// And one that fails while it is loaded, which cannot come off.
			r = s.want(request{Do: "keep", Module: s.give("oops", oops)}, "oops")
			if fromSum(t, r.Quarantined[len(r.Quarantined)-1].SHA256) != "oops" || r.Intent.Phase != "" || r.Intent.Strikes != 0 {
				t.Errorf("quarantine is %+v, the record %+v", r.Quarantined, r.Intent)
			}
			s.want(request{Do: "keep", Module: s.give("oops", oops)}, "quarantine")
		})
	}
}

// TestAgentDies ends the agent alone, at the same moments: the kernel goes on,
// and so does probation.
func TestAgentDies(t *testing.T) {
	k := guest.Debian61
	good := build(t, k, "livemend_one", "patch.c", `TEXT "one"`)
	two := build(t, k, "livemend_two", "patch.c", `TEXT "two"`)
	s := newMachine(t, k).boot()

	s.Put("/run/hold", nil)
	p := s.keeps("keep", s.give("good", good), 0)
	s.Expect("testagent: held before loading")
	s.end(p)
	if r := s.do(request{Do: "start"}); r.Intent.Phase != "" || len(r.Quarantined) != 0 {
		t.Errorf("ended before loading: %+v, %+v", r.Intent, r.Quarantined)
	}
	s.Run(guest.Command{Args: []string{agentPath}, Stdin: []byte(`{"Do":"unhold"}`)})

	p = s.keeps("keep", s.give("good", good), 0)
	s.Expect("testagent: applied livemend_one")
	s.end(p)
	if r := s.do(request{Do: "start"}); r.Intent.Phase != "probation" || r.Intent.Module != "livemend_one" || len(r.Quarantined) != 0 {
		t.Errorf("ended on probation: %+v, %+v", r.Intent, r.Quarantined)
	}
	// A newer level takes its place, and is the one that has to prove itself.
	p = s.keeps("keep-accepted", s.give("newer", two), time.Second)
	s.Expect("testagent: accepted")
	s.shows("two")
	s.onlyModules("livemend_two")
	s.do(request{Do: "term", Number: p.PID})
	if result, err := p.Wait(); err != nil {
		t.Error(err)
	} else if r := s.read(result); r.Intent.Phase != "" || len(r.Quarantined) != 0 {
		t.Errorf("after it was accepted: %+v, %+v", r.Intent, r.Quarantined)
	}
}

// fromSum returns the name that the testagent puts in the place of a checksum.
func fromSum(t *testing.T, sum string) string {
	t.Helper()
	b, ok := hextext.Decode(sum)
	if !ok {
		t.Fatalf("%q is no checksum", sum)
	}
	return strings.TrimSuffix(strings.TrimRight(string(b), "\x00"), ".ko")
}
