package intent_test

import (
	"testing"

	"pgregory.net/rapid"

	"livemend.dev/livemend/agent/kernel/intent"
)

const probation = 600

var (
	a = intent.Patch{SHA256: "aa", Path: "kernel/k/level-1.lmp", Level: 1, Module: "livemend_1"}
	b = intent.Patch{SHA256: "bb", Path: "kernel/k/level-2.lmp", Level: 2, Module: "livemend_2"}
)

func TestStep(t *testing.T) {
	type at struct {
		now  int64
		e    intent.Event
		want intent.Order
	}
	begin := func(p intent.Patch) intent.Event {
		return intent.Event{Kind: intent.Begin, BootID: "1", Patch: p}
	}
	event := func(k intent.Kind) intent.Event { return intent.Event{Kind: k, BootID: "1"} }
	boot := func(id string, k intent.Kernel) intent.Event {
		return intent.Event{Kind: intent.Started, BootID: id, Kernel: k}
	}
	again := func(p intent.Patch) intent.Event {
		return intent.Event{Kind: intent.Begin, BootID: "2", Patch: p}
	}
	loadA := []at{{100, begin(a), intent.Load}, {101, event(intent.Loaded), intent.None}}
	then := func(first []at, more ...at) []at { return append(append([]at{}, first...), more...) }
	for name, test := range map[string]struct {
		events  []at
		phase   intent.Phase
		patch   string
		strikes int64
	}{
		"loaded":                       {loadA, intent.Probation, "aa", 0},
		"accepted":                     {then(loadA, at{700, event(intent.Tick), intent.None}, at{701, event(intent.Tick), intent.Accept}), intent.Idle, "", 0},
		"refused by the kernel":        {[]at{{1, begin(a), intent.Load}, {2, event(intent.NotLoaded), intent.None}}, intent.Idle, "", 0},
		"sick on probation":            {then(loadA, at{200, event(intent.Sick), intent.Condemn}), intent.Idle, "", 0},
		"sick while loading":           {[]at{{1, begin(a), intent.Load}, {2, event(intent.Sick), intent.Condemn}}, intent.Idle, "", 0},
		"sick without a patch":         {[]at{{1, event(intent.Sick), intent.None}}, intent.Idle, "", 0},
		"sick after it was accepted":   {then(loadA, at{900, event(intent.Tick), intent.Accept}, at{901, event(intent.Sick), intent.None}), intent.Idle, "", 0},
		"crash while loading":          {[]at{{1, begin(a), intent.Load}, {5, boot("2", intent.Nothing), intent.Condemn}}, intent.Idle, "", 1},
		"crash on probation":           {then(loadA, at{5, boot("2", intent.Nothing), intent.Condemn}), intent.Idle, "", 1},
		"crash after it was accepted":  {then(loadA, at{900, event(intent.Tick), intent.Accept}, at{5, boot("2", intent.Nothing), intent.None}), intent.Idle, "", 0},
		"shut down on probation":       {then(loadA, at{200, event(intent.Stopping), intent.None}, at{5, boot("2", intent.Nothing), intent.None}), intent.Idle, "", 0},
		"shut down while loading":      {[]at{{1, begin(a), intent.Load}, {2, event(intent.Stopping), intent.None}, {5, boot("2", intent.Nothing), intent.Condemn}}, intent.Idle, "", 1},
		"agent started again":          {then(loadA, at{200, event(intent.Stopping), intent.None}, at{300, boot("1", intent.InForce), intent.None}, at{701, event(intent.Tick), intent.Accept}), intent.Idle, "", 0},
		"agent killed":                 {then(loadA, at{300, boot("1", intent.InForce), intent.None}), intent.Probation, "aa", 0},
		"agent killed while loading":   {[]at{{1, begin(a), intent.Load}, {2, boot("1", intent.InForce), intent.None}}, intent.Probation, "aa", 0},
		"agent killed before loading":  {[]at{{1, begin(a), intent.Load}, {2, boot("1", intent.Nothing), intent.None}}, intent.Idle, "", 0},
		"stuck while loading":          {[]at{{1, begin(a), intent.Load}, {2, boot("1", intent.Stuck), intent.Condemn}}, intent.Idle, "", 0},
		"taken off by hand meanwhile":  {then(loadA, at{300, boot("1", intent.Nothing), intent.None}), intent.Idle, "", 0},
		"taken off":                    {then(loadA, at{300, event(intent.TakenOff), intent.None}), intent.Idle, "", 0},
		"one at a time":                {[]at{{1, begin(a), intent.Load}, {2, begin(b), intent.Refuse}}, intent.Loading, "aa", 0},
		"replaced on probation":        {then(loadA, at{300, begin(b), intent.Load}, at{301, event(intent.Loaded), intent.None}, at{701, event(intent.Tick), intent.None}), intent.Probation, "bb", 0},
		"not replaced":                 {then(loadA, at{300, begin(b), intent.Load}, at{301, event(intent.NotLoaded), intent.None}, at{701, event(intent.Tick), intent.Accept}), intent.Idle, "", 0},
		"sick while it is replaced":    {then(loadA, at{300, begin(b), intent.Load}, at{301, event(intent.Sick), intent.Condemn}), intent.Probation, "aa", 0},
		"crash while it is replaced":   {then(loadA, at{300, begin(b), intent.Load}, at{5, boot("2", intent.Nothing), intent.Condemn}), intent.Idle, "", 1},
		"two crashes":                  {then(loadA, at{5, boot("2", intent.Nothing), intent.Condemn}, at{6, again(b), intent.Load}, at{1, boot("3", intent.Nothing), intent.Condemn}, at{9, again(a), intent.Refuse}), intent.Idle, "", 2},
		"two crashes, cleared":         {then(loadA, at{5, boot("2", intent.Nothing), intent.Condemn}, at{6, again(b), intent.Load}, at{1, boot("3", intent.Nothing), intent.Condemn}, at{8, event(intent.Cleared), intent.None}, at{9, begin(a), intent.Load}), intent.Loading, "aa", 0},
		"a crash, then a good one":     {then(loadA, at{5, boot("2", intent.Nothing), intent.Condemn}, at{6, again(b), intent.Load}, at{7, event(intent.Loaded), intent.None}, at{700, event(intent.Tick), intent.Accept}), intent.Idle, "", 0},
		"a boot without anything open": {[]at{{5, boot("2", intent.Nothing), intent.None}}, intent.Idle, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var r intent.Record
			for i, one := range test.events {
				var order intent.Order
				if r, order = intent.Step(r, one.e, one.now, probation); order != one.want {
					t.Fatalf("event %d: order %d, want %d; %+v", i, order, one.want, r)
				}
			}
			if r.Phase != test.phase || r.SHA256 != test.patch || r.Strikes != test.strikes {
				t.Errorf("it ends in %+v", r)
			}
		})
	}
}

// TestNoBootLoop plays a machine whose patches all bring it down, at any moment,
// and whose agent is told to load them again and again.
func TestNoBootLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r intent.Record
		crashes, barred := 0, map[string]bool{}
		for boot := range 6 {
			id := string(rune('1' + boot))
			found := r.Patch
			next, order := intent.Step(r, intent.Event{Kind: intent.Started, BootID: id}, 1, probation)
			if order == intent.Condemn {
				barred[found.SHA256] = true
			}
			r = next
			patch := rapid.SampledFrom([]intent.Patch{a, b, {SHA256: "cc"}, {SHA256: "dd"}}).Draw(t, "patch")
			if barred[patch.SHA256] {
				continue
			}
			next, order = intent.Step(r, intent.Event{Kind: intent.Begin, BootID: id, Patch: patch}, 2, probation)
			if order != intent.Load {
				continue
			}
			if r = next; rapid.Bool().Draw(t, "loaded") {
				r, _ = intent.Step(r, intent.Event{Kind: intent.Loaded, BootID: id}, 3, probation)
			}
			crashes++ // with r as it is on the disk
		}
		if crashes > intent.MaxStrikes {
			t.Fatalf("the machine crashed %d times", crashes)
		}
	})
}
