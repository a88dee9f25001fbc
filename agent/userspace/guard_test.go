package userspace

import (
	"context"
	"io"
	"runtime"
	"testing"
	"time"
)

// When the first two processes die of a patch, the others are not tried.
func TestCanary(t *testing.T) {
	p := makePatch(t, libPath, 1, map[string][]byte{"f1": {0x0f, 0x0b}}) // ud2
	e := New(Options{Children: true, Watch: 20 * time.Second})
	hosts := []*host{startHost(t), startHost(t), startHost(t)}
	for _, h := range hosts {
		h.want("call 1", "ok")
	}
	results, err := e.Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[Outcome]int)
	for _, h := range hosts {
		count[of(t, results, h.pid()).Outcome]++
	}
	if count[Patched] != 2 || count[Skipped] != 1 {
		t.Errorf("outcomes %v, want two patched and one skipped", count)
	}
	for _, h := range hosts {
		if of(t, results, h.pid()).Outcome == Skipped {
			h.want("f1 1", "2")
			continue
		}
		if err := h.cmd.Wait(); err == nil {
			t.Error("the program ended well, want it to have died of the patch")
		}
	}
}

// An agent that died between mapping the image and switching to it left the
// image behind: it is used. One whose content is not the patch's is not.
func TestImageLeftBehind(t *testing.T) {
	for _, spoil := range []bool{false, true} {
		h := startHost(t)
		p := makePatch(t, libPath, 1, all(100))
		a := attempt{job: job{engine: testEngine(), patch: p}, ctx: context.Background()}
		tg := targetOf(t, h.pid())
		pl, err := tg.planApply(&p)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-onThread(func() error { return a.bringImage(tg, pl, status{}) }); err != nil {
			t.Fatal(err)
		}
		if spoil {
			poke(t, h, pl.carrier.image, []byte{0xcc})
		}
		h.do(testEngine().Apply, p, Patched)
		h.want("f1 1", "101")
		want := 1
		if spoil {
			want = 2
		}
		if n := countStates(h); n != want {
			t.Errorf("spoilt %v: %d images, want %d", spoil, n, want)
		}
	}
}

// What a target claims about itself is not believed: an image whose code was
// changed does not count as the patch.
func TestChangedImageIsNotPatched(t *testing.T) {
	h := startHost(t)
	e := testEngine()
	p := makePatch(t, libPath, 1, all(100))
	h.do(e.Apply, p, Patched)
	cs, err := targetOf(t, h.pid()).carriers(p.File.BuildID)
	if err != nil || len(cs) != 1 {
		t.Fatalf("%d images, error %v", len(cs), err)
	}
	poke(t, h, cs[0].image+2, []byte{1})
	h.do(e.Status, p, Failed)
	h.do(e.Apply, p, Failed)
}

func TestRefusedPatches(t *testing.T) {
	good := makePatch(t, libPath, 1, all(100))
	for name, change := range map[string]func(p *Patch){
		"no image":    func(p *Patch) { p.File = nil },
		"level":       func(p *Patch) { p.Level = 0 },
		"image rules": func(p *Patch) { f := *p.File; f.Arch = "arm64"; p.File = &f },
	} {
		p := good
		change(&p)
		if results, err := testEngine().Apply(context.Background(), p); err == nil || results != nil {
			t.Errorf("%s: results %v, error %v; want it refused", name, results, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := testEngine().Apply(ctx, good); err == nil {
		t.Error("a cancelled call succeeded")
	}
}

// A process that starts another program between any two steps is left alone by
// all later ones: the new program is neither called upon nor written to.
func TestExecRace(t *testing.T) {
	p := makePatch(t, libPath, 1, all(100))
	becomeCat := func(h *host) {
		if _, err := io.WriteString(h.in, "exec\n"); err != nil {
			t.Error(err)
		}
		for comm := ""; comm != "cat" && !t.Failed(); runtime.Gosched() {
			l, err := look(h.pid())
			if err != nil {
				t.Error(err)
				return
			}
			comm = l.comm
			l.close()
		}
	}
	for name, step := range map[string]func(a *attempt, tg *target, pl *plan, change func()) error{
		"before the image": func(a *attempt, tg *target, pl *plan, change func()) error {
			change()
			return a.bringImage(tg, pl, status{})
		},
		"before the call": func(a *attempt, tg *target, pl *plan, change func()) error {
			g, err := gadget(tg.h, tg.maps)
			if err != nil {
				return err
			}
			change()
			_, _, err = newTracer(tg.h).inject(g, []call{mapCall(pl.carrier.begin(), pageSize, protRead)}, status{}, time.Second)
			return err
		},
		"before the switch": func(a *attempt, tg *target, pl *plan, change func()) error {
			if err := a.bringImage(tg, pl, status{}); err != nil {
				return err
			}
			change()
			_, _, err := newTracer(tg.h).carryOut(tg, pl, time.Second)
			return err
		},
	} {
		h := startHost(t)
		a := &attempt{job: job{engine: testEngine(), patch: p}, ctx: context.Background()}
		tg := targetOf(t, h.pid())
		pl, err := tg.planApply(&p)
		if err != nil {
			t.Fatal(err)
		}
		err = <-onThread(func() error { return step(a, tg, pl, func() { becomeCat(h) }) })
		if err != errEnded && err != errExec && err != errNotMapped {
			t.Errorf("%s: error %v, want that it is another program", name, err)
		}
		h.want("cat is well", "cat is well")
		for _, m := range h.maps() {
			if m.start == pl.carrier.begin() {
				t.Errorf("%s: the new program has the image", name)
			}
		}
	}
}
