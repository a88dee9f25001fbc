package wire_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/wire"
)

var facts = wire.Facts{Hostname: "web01", MachineID: "m", OS: "debian", OSVersion: "12", Kernel: "6.1.0-47-amd64", KernelID: "ab12", Arch: "amd64"}

var applied = []wire.Applied{{Path: "user/aa/level-1.lmp", SHA256: "cc", Level: 1, Processes: 2, CVEs: []string{"CVE-2026-1"}}}

// roundTrip checks that decode gives back what was encoded, and that every
// truncation is refused.
func roundTrip[T any](t *testing.T, in T, encoded []byte, decode func([]byte) (T, error)) {
	t.Helper()
	got, err := decode(encoded)
	if err != nil {
		t.Fatalf("%T: %v\n%s", in, err, encoded)
	}
	if diff := cmp.Diff(in, got); diff != "" {
		t.Errorf("%T changed on the way (-sent +received):\n%s", in, diff)
	}
	for i := range encoded {
		if _, err := decode(encoded[:i]); err == nil {
			t.Errorf("%T: the first %d bytes decode", in, i)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	g := wire.Greeting{Version: 1, Agent: "0.1", SystemID: "S-1", BootID: "b"}
	roundTrip(t, g, g.Encode(), wire.DecodeGreeting)
	w := wire.Welcome{Version: 1, Time: 1700000000, Known: true}
	roundTrip(t, w, w.Encode(), wire.DecodeWelcome)
	e := wire.Enrolment{Facts: facts, Credential: "K", KeyProof: []byte{1, 0xff}, IdentityKey: []byte{2}, ChannelKey: []byte{3}, Identity: []byte{4}}
	roundTrip(t, e, e.Encode(), wire.DecodeEnrolment)
	a := wire.Admission{SystemID: "S-1", Customer: "Example \"Ltd\""}
	roundTrip(t, a, a.Encode(), wire.DecodeAdmission)
	s := wire.Snapshot{Facts: facts, BootID: "b", Applied: applied,
		Libraries: []wire.Library{{BuildID: "ab", Path: "/usr/lib/x y.so", Processes: 3, Deleted: true}},
		Packages:  []wire.Package{{Name: "liblzma5", Version: "5.4.1-1", Source: "xz-utils"}},

		Quarantined: []wire.Quarantined{{BuildID: "ab", Path: "user/aa/level-2.lmp", SHA256: "dd", Level: 2, Reason: "process 7 died", Time: 9}}, KernelHalted: true}
	roundTrip(t, s, s.Encode(), wire.DecodeSnapshot)
	r := wire.Range{Path: "user/aa/level-1.lmp", SHA256: "cc", Off: 1 << 33, Len: wire.MaxChunk}
	roundTrip(t, r, r.Encode(), wire.DecodeRange)
	p := wire.Step{Task: "t", Name: "verify", Text: "both chains"}
	roundTrip(t, p, p.Encode(), wire.DecodeStep)
	x := wire.Attack{Kind: "rollback", Text: "snapshot 3 after 4"}
	roundTrip(t, x, x.Encode(), wire.DecodeAttack)
	rep := wire.Report{SystemID: "S-1", Task: "t", Action: "apply", Manifest: "aa", Path: "p", Outcome: wire.Done, Text: "ok",
		Processes: []wire.ProcessResult{{PID: 7, Start: 8, Command: "ech\nod", Outcome: wire.Done, Threads: 8, StopNS: 123}},
		Scan:      []byte{0, 1}, Applied: applied, BootID: "b", Time: 9}
	roundTrip(t, rep, rep.Value().JSON(), func(b []byte) (wire.Report, error) {
		v, err := cjson.Parse(b)
		if err != nil {
			return wire.Report{}, err
		}
		return wire.ParseReport(v)
	})
}

func TestRangeLimits(t *testing.T) {
	for _, r := range []wire.Range{{Path: "p", Len: 0}, {Path: "p", Len: wire.MaxChunk + 1}, {Path: "p", Off: -1, Len: 1}} {
		if _, err := wire.DecodeRange(r.Encode()); err == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}
