package slim

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/flynn/noise"

	"livemend.dev/livemend/channel"
)

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

func randomKey(t *testing.T) [keySize]byte {
	t.Helper()
	var k [keySize]byte
	if _, err := rand.Read(k[:]); err != nil {
		t.Fatal(err)
	}
	return k
}

func complete(t *testing.T, initiates bool, static, ephemeral [keySize]byte, remote []byte) *noise.HandshakeState {
	t.Helper()
	pair, err := noise.DH25519.GenerateKeypair(bytes.NewReader(static[:]))
	if err != nil {
		t.Fatal(err)
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeIK, Prologue: []byte(channel.Prologue), Initiator: initiates,
		StaticKeypair: pair, PeerStatic: remote, Random: bytes.NewReader(ephemeral[:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// respond is the other role, which the product does not need in this package.
func respond(private, ephemeral [keySize]byte, first []byte) (second []byte, s *symmetricState, remote [keySize]byte, err error) {
	s = newSymmetricState()
	own := Public(private)
	s.mixHash(own[:])
	e := [keySize]byte(first)
	s.mixHash(e[:])
	if err := s.mixKey(private, e); err != nil {
		return nil, nil, remote, err
	}
	static, err := s.openAndHash(first[32:80])
	if err != nil {
		return nil, nil, remote, err
	}
	remote = [keySize]byte(static)
	if err := s.mixKey(private, remote); err != nil {
		return nil, nil, remote, err
	}
	if _, err := s.openAndHash(first[80:]); err != nil {
		return nil, nil, remote, err
	}
	re := Public(ephemeral)
	s.mixHash(re[:])
	if err := s.mixKey(ephemeral, e); err != nil {
		return nil, nil, remote, err
	}
	if err := s.mixKey(ephemeral, remote); err != nil {
		return nil, nil, remote, err
	}
	second, err = s.sealAndHash(re[:], nil)
	return second, s, remote, err
}

// exchange proves that what one end seals the other opens, both ways.
func exchange(t *testing.T, aSend, aReceive, bSend, bReceive channel.Cipher) {
	t.Helper()
	for i := range 50 {
		for _, way := range []struct{ seal, open channel.Cipher }{{aSend, bReceive}, {bSend, aReceive}} {
			plain := make([]byte, i*37)
			if _, err := rand.Read(plain); err != nil {
				t.Fatal(err)
			}
			sealed, err := way.seal.Encrypt(nil, nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			got, err := way.open.Decrypt(nil, nil, sealed)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("message %d does not open: %v", i, err)
			}
		}
	}
}

func TestInitiatorAgainstCompleteLibrary(t *testing.T) {
	for range 20 {
		static, server, e1, e2 := randomKey(t), randomKey(t), randomKey(t), randomKey(t)
		i, first, err := initiate(static, e1, Public(server))
		if err != nil {
			t.Fatal(err)
		}
		remote := Public(server)
		twin := complete(t, true, static, e1, remote[:])
		if want, _, _, err := twin.WriteMessage(nil, nil); err != nil || !bytes.Equal(first, want) {
			t.Fatalf("first message %x, want %x (%v)", first, want, err)
		}
		other := complete(t, false, server, e2, nil)
		if _, _, _, err := other.ReadMessage(nil, first); err != nil {
			t.Fatal(err)
		}
		second, otherReceive, otherSend, err := other.WriteMessage(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		send, receive, err := i.finish([channel.ResponseSize]byte(second))
		if err != nil {
			t.Fatal(err)
		}
		own := Public(static)
		if !bytes.Equal(other.PeerStatic(), own[:]) || !bytes.Equal(other.ChannelBinding(), i.hash[:]) {
			t.Fatal("the ends disagree about who is there or about the handshake hash")
		}
		exchange(t, send, receive, otherSend, otherReceive)
	}
}

func TestResponderAgainstCompleteLibrary(t *testing.T) {
	static, server, e1, e2 := randomKey(t), randomKey(t), randomKey(t), randomKey(t)
	remote := Public(server)
	other := complete(t, true, static, e1, remote[:])
	first, _, _, err := other.WriteMessage(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, s, who, err := respond(server, e2, first)
	if err != nil {
		t.Fatal(err)
	}
	_, otherSend, otherReceive, err := other.ReadMessage(nil, second)
	if err != nil {
		t.Fatal(err)
	}
	if who != Public(static) || !bytes.Equal(other.ChannelBinding(), s.hash[:]) {
		t.Fatal("the ends disagree about who is there or about the handshake hash")
	}
	receive, send, err := s.split()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, send, receive, otherSend, otherReceive)
}

// Every changed bit of either message must end the handshake.
func TestEveryChangedBitIsRefused(t *testing.T) {
	static, server, e1, e2 := randomKey(t), randomKey(t), randomKey(t), randomKey(t)
	i, first, err := initiate(static, e1, Public(server))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(first) * 8 {
		wrong := bytes.Clone(first)
		wrong[bit/8] ^= 1 << (bit % 8)
		if _, _, _, err := respond(server, e2, wrong); err == nil {
			t.Errorf("first message with bit %d changed was accepted", bit)
		}
	}
	second, _, _, err := respond(server, e2, first)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(second) * 8 {
		wrong := bytes.Clone(second)
		wrong[bit/8] ^= 1 << (bit % 8)
		again := *i
		if _, _, err := again.finish([channel.ResponseSize]byte(wrong)); !errors.Is(err, channel.ErrHandshake) {
			t.Errorf("second message with bit %d changed: %v, want ErrHandshake", bit, err)
		}
	}
}

func TestLowOrderKeysEndTheHandshake(t *testing.T) {
	static, server := randomKey(t), randomKey(t)
	for _, text := range lowOrder {
		if _, _, err := initiate(static, randomKey(t), key(t, text)); !errors.Is(err, errLowOrder) {
			t.Errorf("server key %s: %v, want errLowOrder", text, err)
		}
		i, _, err := initiate(static, randomKey(t), Public(server))
		if err != nil {
			t.Fatal(err)
		}
		var second [channel.ResponseSize]byte
		low := key(t, text)
		copy(second[:], low[:])
		if _, _, err := i.finish(second); !errors.Is(err, channel.ErrHandshake) {
			t.Errorf("ephemeral key %s: %v, want ErrHandshake", text, err)
		}
	}
}

func TestWrongServerKeyIsRefused(t *testing.T) {
	_, first, err := initiate(randomKey(t), randomKey(t), Public(randomKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := respond(randomKey(t), randomKey(t), first); err == nil {
		t.Error("a server without the key understood the first message")
	}
}
