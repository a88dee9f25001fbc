package link

import "sync"

// board shows the newest snapshot to whoever is connected.
type board struct {
	mu      sync.Mutex
	newest  []byte
	changed chan struct{} // closed when newest is replaced
}

func newBoard() *board { return &board{changed: make(chan struct{})} }

func (b *board) put(body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.newest = body
	close(b.changed)
	b.changed = make(chan struct{})
}

// get returns the newest snapshot, nil before the first, and what tells that
// there is a newer one.
func (b *board) get() ([]byte, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest, b.changed
}
