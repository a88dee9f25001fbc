package platformtest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/slim"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// Machine speaks to a platform as an agent does, and does what the test says.
type Machine struct {
	SystemID string
	Hostname string
	Identity ed25519.PrivateKey
	Applied  []wire.Applied // what it claims is in force
	Peer     *channel.Peer  // of the connection that is open

	Quarantined []wire.Quarantined // what it says it never applies again

	t        testing.TB
	p        *Platform
	channel  [channel.KeySize]byte
	session  slim.Session
	hangUp   func()
	counters []int64 // of the orders it got
}

// Machine makes a machine that is not enrolled.
func (p *Platform) Machine(hostname string) *Machine {
	p.t.Helper()
	m := &Machine{t: p.t, p: p, Hostname: hostname}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(p.t, err)
	m.Identity = key
	rand.Read(m.channel[:])
	return m
}

// Connect connects, ending an older connection.
func (m *Machine) Connect() {
	m.t.Helper()
	m.HangUp()
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	public, err := hex.DecodeString(m.p.Bundle.ServerKeys[0])
	check(m.t, err)
	m.session, err = slim.Dial(ctx, m.p.URL, m.channel, [][channel.KeySize]byte{[channel.KeySize]byte(public)})
	check(m.t, err)
	peer := channel.NewPeer(m.session.Conn)
	life, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = peer.Serve(life, nil) }) // ends when the test or the platform hangs up
	m.Peer = peer
	m.hangUp = func() {
		stop()
		running.Wait()
	}
	m.t.Cleanup(m.HangUp)
}

// HangUp ends the connection.
func (m *Machine) HangUp() {
	if m.hangUp != nil {
		m.hangUp()
		m.hangUp = nil
	}
}

// Call asks the platform.
func (m *Machine) Call(method wire.Method, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	return m.Peer.Call(ctx, method, body)
}

func (m *Machine) must(method wire.Method, body []byte) []byte {
	m.t.Helper()
	answer, err := m.Call(method, body)
	check(m.t, err)
	return answer
}

func (m *Machine) facts() wire.Facts {
	return wire.Facts{Hostname: m.Hostname, MachineID: hex.EncodeToString([]byte(m.Hostname)), OS: "debian", OSVersion: "12",
		Kernel: "6.1.0-47-amd64", KernelID: "cccccccccccccccccccccccccccccccccccccccc", Arch: "amd64"}
}

// Enrol asks for a System ID with the text of a key or token, or with a bare
// Customer ID.
func (m *Machine) Enrol(text string) error {
	m.t.Helper()
	m.Connect()
	challenge := m.must(wire.Challenge, nil)
	public := m.Identity.Public().(ed25519.PublicKey)
	own := slim.Public(m.channel)
	in := wire.Enrolment{Facts: m.facts(), Credential: text, IdentityKey: public, ChannelKey: own[:]}
	binding := enrol.Binding{Challenge: challenge, Handshake: m.session.HandshakeHash(), IdentityKey: public, ChannelKey: own[:]}
	if credential, err := enrol.Parse(text); err == nil {
		in.Credential, binding.Credential = credential.ID(), credential.ID()
		in.KeyProof = credential.Prove(binding)
	}
	binding.Credential = in.Credential
	in.Identity = ed25519.Sign(m.Identity, binding.Bytes())
	answer, err := m.Call(wire.Enrol, in.Encode())
	if err != nil {
		return err
	}
	admission, err := wire.DecodeAdmission(answer)
	check(m.t, err)
	m.SystemID = admission.SystemID
	return nil
}

// Start connects, says hello and tells what it runs.
func (m *Machine) Start() {
	m.t.Helper()
	m.Connect()
	welcome, err := wire.DecodeWelcome(m.must(wire.Hello, wire.Greeting{Version: wire.Version, Agent: "0.1.0", SystemID: m.SystemID, BootID: "boot"}.Encode()))
	check(m.t, err)
	if !welcome.Known {
		m.t.Fatalf("%s is not known", m.Hostname)
	}
	m.Tell()
}

// Tell sends the inventory: three processes map Library.
func (m *Machine) Tell() {
	m.t.Helper()
	m.must(wire.Inventory, wire.Snapshot{Facts: m.facts(), BootID: "boot",
		Libraries: []wire.Library{{BuildID: Library, Path: "/usr/lib/libc.so.6", Processes: 3}},
		Packages:  []wire.Package{{Name: "libc6", Version: "2.36-9+deb12u14"}}, Applied: m.Applied, Quarantined: m.Quarantined}.Encode())
}

// Work asks for an order, verifies it as an agent does and returns it with its
// bytes. It fails the test when there is none.
func (m *Machine) Work() (*trust.Manifest, []byte) {
	m.t.Helper()
	for {
		envelope := m.must(wire.Work, nil)
		if len(envelope) == 0 {
			continue
		}
		last := int64(0)
		if n := len(m.counters); n > 0 {
			last = m.counters[n-1]
		}
		who := trust.Identity{SystemID: m.SystemID, KeyHash: trust.HashKey(m.Identity.Public().(ed25519.PublicKey))}
		manifest, err := trust.VerifyManifest(envelope, m.p.Bundle.Director, who, last, time.Now())
		check(m.t, err)
		m.counters = append(m.counters, manifest.Counter)
		return manifest, envelope
	}
}

// Report signs and sends a report that answers an order; change, unless nil,
// changes it first.
func (m *Machine) Report(order *trust.Manifest, envelope []byte, change func(*wire.Report)) error {
	m.t.Helper()
	sum := sha256.Sum256(envelope)
	r := wire.Report{SystemID: m.SystemID, Task: order.Task, Action: string(order.Action), Manifest: hex.EncodeToString(sum[:]), Path: order.Path,
		Outcome: wire.Done, Applied: m.Applied, BootID: "boot", Time: time.Now().Unix()}
	if change != nil {
		change(&r)
	}
	_, err := m.Call(wire.Result, trust.Seal(r.Value(), "agent", func(b []byte) []byte { return ed25519.Sign(m.Identity, b) }))
	return err
}

// Apply answers an order to apply a patch as an agent that applied it.
func (m *Machine) Apply(order *trust.Manifest, envelope []byte) {
	m.t.Helper()
	m.Applied = []wire.Applied{{Path: order.Path, SHA256: order.SHA256, Level: order.Level, Processes: 3, CVEs: []string{CVE}}}
	check(m.t, m.Report(order, envelope, func(r *wire.Report) {
		for pid := range int64(3) {
			r.Processes = append(r.Processes, wire.ProcessResult{PID: 100 + pid, Start: 7, Command: "echobeatd", Outcome: wire.Done, Threads: 8, StopNS: 412_000})
		}
	}))
}

// Pack packs a scanner's report as an agent does.
func Pack(t testing.TB, report []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(report)
	check(t, err)
	check(t, z.Close())
	return b.Bytes()
}

// Forget makes the machine forget its connection without ending it: a copy of
// the machine may then connect beside it.
func (m *Machine) Forget() { m.hangUp = nil }
