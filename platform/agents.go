package platform

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// The methods of this file are for the agents' end of the channel: the server
// is the one whose key the connection proved. Errors are a *wire.Error for the
// agent, or the platform's own.

// KnownServer returns the enrolled server that holds a channel key.
func (s *Service) KnownServer(ctx context.Context, channelKey []byte) (fleet.Server, bool, error) {
	server, err := platformdb.ServerByChannelKey(ctx, s.db, channelKey)
	if errors.Is(err, store.ErrNotFound) {
		return fleet.Server{}, false, nil
	}
	return server, err == nil, err
}

// maxWords bounds the steps and alarms of one connection that are kept: they
// are for people, and an agent gone wrong must not fill the database.
const maxWords = 1000

// Presence is one open connection of an enrolled server. Close must be called.
type Presence struct {
	s      *Service
	server fleet.Server
	orders chan struct{}
	leave  func()
	words  atomic.Int64
	handed sync.Map // ids of the tasks whose orders went out on this connection
}

// mayTalk counts a step or alarm.
func (p *Presence) mayTalk() error {
	if p.words.Add(1) > maxWords {
		return &wire.Error{Code: wire.CodeBusy, Message: "this connection has said more than is kept; orders and reports go on"}
	}
	return nil
}

// Arrive notes that a server is connected, and what its agent said of itself.
func (s *Service) Arrive(ctx context.Context, server fleet.Server, g wire.Greeting) (*Presence, error) {
	orders, leave := s.hub.join(s.hub.agents, server.ID)
	p := &Presence{s: s, server: server, orders: orders, leave: leave}
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.Greeted(ctx, tx, server.ID, g.Agent, g.BootID, s.now()); err != nil {
			return err
		}
		return platformdb.AddEvent(ctx, tx, server.Organisation, fleet.Event{Kind: "server", Server: server.ID, Text: server.Hostname + " connected", At: s.now()})
	})
	if err != nil {
		leave()
		return nil, err
	}
	s.hub.publish(server.Organisation)
	return p, nil
}

// Server returns whose connection it is.
func (p *Presence) Server() fleet.Server { return p.server }

// Close notes that the connection ended.
func (p *Presence) Close(ctx context.Context) error {
	p.leave()
	err := p.s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.Seen(ctx, tx, p.server.ID, p.s.now()); err != nil {
			return err
		}
		if p.s.hub.online(p.server.ID) {
			return nil // it came back before this connection was found dead
		}
		return platformdb.AddEvent(ctx, tx, p.server.Organisation, fleet.Event{Kind: "server", Server: p.server.ID, Text: p.server.Hostname + " disconnected", At: p.s.now()})
	})
	p.s.hub.publish(p.server.Organisation)
	return err
}

// Work returns the next signed order, or nothing after wait. An agent that asks
// is idle: an order that it got before and did not answer is lost and is signed
// again, with a higher counter.
func (p *Presence) Work(ctx context.Context, wait time.Duration) ([]byte, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		task, manifest, err := p.s.take(ctx, p.server)
		if manifest != nil {
			p.handed.Store(task, true)
		}
		if err != nil || manifest != nil {
			return manifest, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.C:
			return nil, nil
		case _, ok := <-p.orders:
			if !ok {
				return nil, &wire.Error{Code: wire.CodeUnknown, Message: "this server was removed from the platform; live patches stay in force: enrol it again to manage it"}
			}
		}
	}
}

// take marks the server's order as sent and returns it with its task's id; nil
// when there is none.
func (s *Service) take(ctx context.Context, server fleet.Server) (task string, manifest []byte, err error) {
	var after followUp
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		after, manifest = followUp{}, nil
		t, err := platformdb.OrderFor(ctx, tx, server.ID)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		event := rollout.Event{Kind: rollout.Fetched}
		if t.State != rollout.Signed {
			event.Kind = rollout.AskedAgain
		}
		changed, err := s.step(ctx, tx, &t, event, &after)
		if changed && t.State == rollout.Sent {
			task, manifest = t.ID, t.Manifest
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	s.follow(after)
	return task, manifest, nil
}

// Inventory takes in what an agent sees on its system.
func (p *Presence) Inventory(ctx context.Context, body []byte) error {
	snapshot, err := wire.DecodeSnapshot(body)
	if err != nil {
		return malformed("the inventory cannot be read; nothing was changed: " + err.Error())
	}
	server, f := p.server, snapshot.Facts
	server.Hostname, server.MachineID, server.OS, server.OSVersion = f.Hostname, f.MachineID, f.OS, f.OSVersion
	server.Kernel, server.KernelID, server.Arch, server.BootID = f.Kernel, f.KernelID, f.Arch, snapshot.BootID
	server.InventoryAt = p.s.now()
	var after followUp
	err = p.s.db.InTx(ctx, func(tx *store.Tx) error {
		after = followUp{}
		barred, err := newlyBarred(ctx, tx, server.ID, snapshot.Quarantined)
		if err != nil {
			return err
		}
		if err := platformdb.PutInventory(ctx, tx, server, body); err != nil {
			return err
		}
		for _, q := range barred {
			if err := p.s.barred(ctx, tx, server, q, &after); err != nil {
				return err
			}
		}
		if err := platformdb.ReplaceApplied(ctx, tx, server.ID, appliedOf(snapshot.Applied, p.s.now())); err != nil {
			return err
		}
		return p.s.recompute(ctx, tx, server)
	})
	if err == nil {
		p.s.follow(after)
		p.s.hub.publish(server.Organisation)
	}
	return err
}

func appliedOf(list []wire.Applied, now time.Time) []fleet.Applied {
	out := make([]fleet.Applied, len(list))
	for i, a := range list {
		out[i] = fleet.Applied{Path: a.Path, SHA256: a.SHA256, Level: a.Level, Processes: a.Processes, CVEs: a.CVEs, At: now}
	}
	return out
}

// Progress notes what an agent is doing with an order.
func (p *Presence) Progress(ctx context.Context, step wire.Step) error {
	if err := p.mayTalk(); err != nil {
		return err
	}
	t, err := platformdb.TaskByID(ctx, p.s.db, step.Task)
	if errors.Is(err, store.ErrNotFound) || err == nil && t.Server != p.server.ID {
		return &wire.Error{Code: wire.CodeNotFound, Message: "there is no such task for this server"}
	}
	if err != nil {
		return err
	}
	return p.s.happen(ctx, step.Task, rollout.Event{Kind: rollout.Progressed}, func(tx *store.Tx, t *platformdb.Task, after *followUp) error {
		if t.State.Final() {
			return nil
		}
		return p.s.taskEvent(ctx, tx, *t, "task", step.Name+": "+step.Text, after)
	})
}

// Alarm notes that something signed was wrong in a way that a fault does not
// explain.
func (p *Presence) Alarm(ctx context.Context, a wire.Attack) error {
	if err := p.mayTalk(); err != nil {
		return err
	}
	p.s.log.WarnContext(ctx, "an agent reports an attack", "server", p.server.ID, "kind", a.Kind, "text", a.Text)
	err := p.s.db.InTx(ctx, func(tx *store.Tx) error {
		return platformdb.AddEvent(ctx, tx, p.server.Organisation, fleet.Event{Kind: "alarm", Server: p.server.ID, Text: p.server.Hostname + " reports: " + a.Kind + ": " + a.Text, At: p.s.now()})
	})
	if err == nil {
		p.s.hub.publish(p.server.Organisation)
	}
	return err
}

// Metadata returns a piece of a file of the repository's verified metadata, or
// of the director's root. r is as wire.DecodeRange accepts it.
func (s *Service) Metadata(r wire.Range) ([]byte, error) {
	b, err := s.mirror.read(r)
	if errors.Is(err, ErrNotFound) {
		return nil, &wire.Error{Code: wire.CodeNotFound, Message: "there is no such metadata file here"}
	}
	return b, err
}

// Target returns a piece of a target. Only files that passed the checks of a
// task are here. r is as wire.DecodeRange accepts it.
func (s *Service) Target(r wire.Range) ([]byte, error) {
	none := &wire.Error{Code: wire.CodeNotFound, Message: "there is no such file here"}
	if b, ok := hextext.Decode(r.SHA256); !ok || len(b) != 32 || !trust.ValidPath(r.Path) {
		return nil, none
	}
	b, err := readPiece(s.files, r.SHA256, r)
	if errors.Is(err, ErrNotFound) {
		return nil, none
	}
	return b, err
}
