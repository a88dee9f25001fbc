package agent_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/trust"
)

// An artifact with any bit flipped is refused, on its way to the agent and when
// it comes back from the agent's disk. That a refusal changes nothing is
// TestRefusedOrdersChangeNothing.
func TestEveryFlippedBitOfAnArtifact(t *testing.T) {
	s := newSample(t)
	artifact := bytes.Clone(s.levels[0].Artifact)
	sum := sha256.Sum256(artifact)
	signed := trust.Target{Path: s.levels[0].Metadata.Path(), Length: int64(len(artifact)), SHA256: hex.EncodeToString(sum[:])}
	dir := t.TempDir()
	store, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	name, err := store.PutObject(artifact)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("the stored artifact: %q, %v", found, err)
	}
	for bit := range 8 * len(artifact) {
		artifact[bit/8] ^= 1 << (bit % 8)
		if err := trust.CheckContent(signed, bytes.NewReader(artifact)); !errors.Is(err, trust.ErrHash) {
			t.Errorf("bit %d flipped on the way: %v", bit, err)
		}
		if bit%8 == bit/8%8 { // each byte once, each place in a byte in turn
			if err := os.WriteFile(found[0], artifact, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Object(name); !errors.Is(err, state.ErrDamaged) {
				t.Errorf("bit %d flipped on disk: %v", bit, err)
			}
		}
		artifact[bit/8] ^= 1 << (bit % 8)
	}
	for n := range artifact {
		if err := trust.CheckContent(signed, bytes.NewReader(artifact[:n])); !errors.Is(err, trust.ErrLength) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if err := trust.CheckContent(signed, bytes.NewReader(artifact)); err != nil {
		t.Errorf("the artifact itself: %v", err)
	}
}
