// Package link keeps the agent connected to its platform: it connects, says
// what is on the system, delivers reports that wait, asks for work, and starts
// again when the connection ends.
//
// It moves bytes and decides nothing: orders go to package orders as they come.
package link

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/orders"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/slim"
	"livemend.dev/livemend/internal/entropy"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// Waits between attempts to connect: doubled each time, and each a random part
// of itself, so that a fleet does not come back all at once.
const (
	firstWait  = time.Second
	longWait   = time.Minute
	steadyTime = time.Minute // a connection that lasted this long starts the waits anew
)

// Deadlines of requests.
const (
	askTime  = time.Minute
	workTime = (wire.WorkWait + 30) * time.Second
)

// Agent is the running agent. All fields must be set before Run.
type Agent struct {
	Version   string
	Store     *state.Store
	Inventory *inventory.Collector
	Orders    *orders.Executor
	Every     time.Duration // between rounds: looking at processes and saying what is there
	Log       func(string)
	// Events runs beside the rounds until ctx ends; scan asks for a round soon. Nil
	// for none.
	Events func(ctx context.Context, scan func())

	look sync.Mutex    // guards Inventory
	kick chan struct{} // asks for a round at once
}

// Run runs the agent until ctx ends, whose error it returns, or until the state
// makes work impossible. The first round is made before any connection, so that
// admitted patches come back without a network.
func (a *Agent) Run(ctx context.Context) error {
	if _, err := a.Store.Enrolment(); err != nil {
		if errors.Is(err, state.ErrAbsent) {
			return errors.New("this system is not enrolled; nothing was done: run livemend-agent enrol --server URL")
		}
		return err
	}
	a.kick = make(chan struct{}, 1)
	snapshots := newBoard()
	a.round(ctx, snapshots)
	var running sync.WaitGroup
	running.Go(func() { a.rounds(ctx, snapshots) })
	if a.Events != nil {
		running.Go(func() { a.Events(ctx, a.ask) })
	}
	a.connections(ctx, snapshots)
	running.Wait()
	return ctx.Err()
}

// rounds makes a round regularly, and when one is asked for.
func (a *Agent) rounds(ctx context.Context, snapshots *board) {
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.kick:
		}
		a.round(ctx, snapshots)
	}
}

// round brings processes and local files up to date and takes a snapshot.
func (a *Agent) round(ctx context.Context, snapshots *board) {
	if err := a.Orders.Round(ctx); err != nil && ctx.Err() == nil {
		a.Log("keeping live patches in force: " + err.Error())
	}
	a.look.Lock()
	defer a.look.Unlock()
	s, err := a.Inventory.Snapshot(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.Log("looking at the system: " + err.Error())
		}
		return
	}
	s.Applied, s.Quarantined, s.KernelHalted = a.Orders.Applied(), a.Store.Quarantines(), a.Orders.KernelHalted()
	body, whole := inventory.Encode(s)
	if !whole {
		a.Log("the inventory is larger than one message: its end was left out")
	}
	snapshots.put(body)
}

// connections connects again and again.
func (a *Agent) connections(ctx context.Context, snapshots *board) {
	wait := firstWait
	for ctx.Err() == nil {
		start := time.Now()
		err := a.connect(ctx, snapshots)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > steadyTime {
			wait = firstWait
		}
		pause := jitter(wait)
		a.Log("not connected: " + err.Error() + "; trying again in " + pause.Round(time.Second/10).String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		wait = min(2*wait, longWait)
	}
}

// jitter returns a random time between half of d and d.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	if err := entropy.Read(b[:]); err != nil {
		return d
	}
	return d/2 + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(d/2+1))
}

// Dial connects to the platform that enrolment names, which must have one of
// the keys that the director root lists.
func Dial(ctx context.Context, store *state.Store) (slim.Session, error) {
	at, err := store.Enrolment()
	if err != nil {
		return slim.Session{}, err
	}
	keys, err := store.Keys()
	if err != nil {
		return slim.Session{}, err
	}
	b, err := store.Trusted(state.DirectorRoot)
	if err != nil {
		return slim.Session{}, err
	}
	root, err := trust.ParseDirectorRoot(b, trust.Ed25519())
	if err != nil {
		return slim.Session{}, err
	}
	servers, err := ServerKeys(root.ChannelKeys)
	if err != nil {
		return slim.Session{}, err
	}
	return slim.Dial(ctx, at.Server, keys.Channel, servers)
}

// ServerKeys reads X25519 public keys from hexadecimal.
func ServerKeys(texts []string) ([][channel.KeySize]byte, error) {
	var out [][channel.KeySize]byte
	for _, text := range texts {
		b, ok := hextext.Decode(text)
		if !ok || len(b) != channel.KeySize {
			return nil, errors.New("a server key is no key")
		}
		out = append(out, [channel.KeySize]byte(b))
	}
	return out, nil
}

// connect works over one connection until it ends and returns why.
func (a *Agent) connect(life context.Context, snapshots *board) error {
	session, err := Dial(life, a.Store)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(life)
	defer stop()
	peer := channel.NewPeer(session.Conn)
	ends := make(chan error, 3)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { ends <- peer.Serve(ctx, nil) })
	if err := a.greet(ctx, peer); err != nil {
		return err
	}
	a.Log("connected")
	running.Go(func() { ends <- a.tell(ctx, peer, snapshots) })
	running.Go(func() { ends <- a.work(ctx, life, peer) })
	return <-ends
}

// greet says hello and finds out whether the platform knows this system.
func (a *Agent) greet(ctx context.Context, peer *channel.Peer) error {
	at, err := a.Store.Enrolment()
	if err != nil {
		return err
	}
	welcome, err := Greet(ctx, peer, wire.Greeting{Agent: a.Version, SystemID: at.SystemID, BootID: a.Orders.BootID})
	if err != nil {
		return err
	}
	if !welcome.Known {
		return errors.New("the platform does not know this system any more; live patches stay in force: run livemend-agent enrol again")
	}
	return nil
}

// Greet says hello with this build's protocol version.
func Greet(ctx context.Context, peer *channel.Peer, g wire.Greeting) (wire.Welcome, error) {
	ctx, stop := context.WithTimeout(ctx, askTime)
	defer stop()
	g.Version = wire.Version
	b, err := peer.Call(ctx, wire.Hello, g.Encode())
	if err != nil {
		return wire.Welcome{}, err
	}
	return wire.DecodeWelcome(b)
}

// tell sends the newest snapshot, once per connection and whenever it changed.
// One that the platform does not take is no reason to stop taking orders: it is
// sent again after the next round.
func (a *Agent) tell(ctx context.Context, peer *channel.Peer, snapshots *board) error {
	var said [sha256.Size]byte
	for {
		body, changed := snapshots.get()
		if sum := sha256.Sum256(body); body != nil && sum != said {
			err := ask(ctx, peer, wire.Inventory, body)
			var answer *wire.Error
			switch {
			case errors.As(err, &answer):
				a.Log("the platform does not take the inventory; it is sent again: " + answer.Message)
			case err != nil:
				return err
			default:
				said = sum
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work delivers reports, then asks for an order and has it carried out, again
// and again. What an order changes does not stop when the connection ends: it
// lives as long as the agent does.
func (a *Agent) work(ctx, life context.Context, peer *channel.Peer) error {
	for {
		if err := a.deliver(ctx, peer); err != nil {
			return err
		}
		envelope, err := a.next(ctx, peer)
		if err != nil {
			return err
		}
		if len(envelope) == 0 {
			continue
		}
		if err := a.Orders.Execute(life, orders.Platform{Peer: peer}, envelope); err != nil {
			return err
		}
		a.ask() // processes or patches changed
	}
}

// ask asks for a round soon.
func (a *Agent) ask() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

func (a *Agent) next(ctx context.Context, peer *channel.Peer) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, workTime)
	defer stop()
	return peer.Call(ctx, wire.Work, nil)
}

// deliver sends the reports that wait, oldest first. One is forgotten when the
// platform has stored it, or says that it never will.
func (a *Agent) deliver(ctx context.Context, peer *channel.Peer) error {
	for {
		r, err := a.Store.NextResult()
		if errors.Is(err, state.ErrAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		err = ask(ctx, peer, wire.Result, r.Report)
		var answer *wire.Error
		if errors.As(err, &answer) && (answer.Code == wire.CodeMalformed || answer.Code == wire.CodeNotFound || answer.Code == wire.CodeRefused) {
			a.Log("the platform does not take a report, which is dropped: " + answer.Message)
		} else if err != nil {
			return err
		}
		if err := a.Store.Acknowledge(r); err != nil {
			return err
		}
	}
}

func ask(ctx context.Context, peer *channel.Peer, m wire.Method, body []byte) error {
	ctx, stop := context.WithTimeout(ctx, askTime)
	defer stop()
	_, err := peer.Call(ctx, m, body)
	return err
}
