package platform

import (
	"sync"

	"livemend.dev/livemend/access"
)

// hub tells who waits in this process that something happened. It carries no
// content: what is true is in the database.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[chan struct{}]struct{} // by organisation
	agents   map[string]map[chan struct{}]struct{} // open connections by server
}

func newHub() *hub {
	return &hub{watchers: map[string]map[chan struct{}]struct{}{}, agents: map[string]map[chan struct{}]struct{}{}}
}

// join adds a channel under a name and returns it with the function that takes
// it away again, which may be called more than once.
func (h *hub) join(group map[string]map[chan struct{}]struct{}, name string) (chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if group[name] == nil {
		group[name] = map[chan struct{}]struct{}{}
	}
	group[name][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(group[name], c)
		if len(group[name]) == 0 {
			delete(group, name)
		}
	}
}

func (h *hub) tell(group map[string]map[chan struct{}]struct{}, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range group[name] {
		nudge(c)
	}
}

// publish says that an organisation has new events.
func (h *hub) publish(org string) { h.tell(h.watchers, org) }

// call says that an order may wait for a server.
func (h *hub) call(server string) { h.tell(h.agents, server) }

// dismiss ends the connections of a server that was removed: it closes what they
// wait for orders on.
func (h *hub) dismiss(server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.agents[server] {
		close(c)
	}
	delete(h.agents, server)
}

// online reports whether a server's agent is connected.
func (h *hub) online(server string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.agents[server]) > 0
}

// nudge leaves one value in a channel; more would say nothing new.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Watch returns a channel that receives a value whenever the organisation has
// new events (values coalesce; read them with Events), and a function that ends
// the watch and must be called.
func (s *Service) Watch(who access.Subject) (<-chan struct{}, func()) {
	return s.hub.join(s.hub.watchers, who.Organisation)
}
