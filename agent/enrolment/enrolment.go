// Package enrolment makes this system known to a platform: it fetches what is
// to be believed and compares it with a pinned digest, makes the system's keys,
// proves possession of a registration key or token, and keeps the System ID.
//
// The secret of a key or token never leaves this process: a proof that is good
// for this one connection does. It must not print, read terminals, or keep the
// credential.
package enrolment

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/link"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/channel"
	"livemend.dev/livemend/channel/http1"
	"livemend.dev/livemend/channel/slim"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
	"livemend.dev/livemend/wire"
)

// Path is where a platform serves its trust bundle.
const Path = "/trust.json"

// Errors of this package.
var (
	ErrDigest  = errors.New("the server's trust bundle is not the one that LIVEMEND_TRUST pins; nothing was kept: copy the install command again, and if it happens again somebody may be between you and the server")
	ErrRefused = errors.New("the platform refused this system")
	ErrOther   = errors.New("this system belongs to another platform; nothing was changed: remove the agent's state folder if it is to move")
)

// How long it takes.
const (
	askTime   = time.Minute
	firstPoll = 2 * time.Second
	longPoll  = 15 * time.Second
)

// Request is one attempt to enrol.
type Request struct {
	Server     string           // http://name:port
	Trust      string           // digest of the trust bundle
	Credential enrol.Credential // registration key or token; not used when Customer is set
	Customer   string           // bare Customer ID: a person has to approve
	Version    string           // the agent's
	Log        func(string)     // tells people that somebody has to approve
}

// Run enrols and returns where the system belongs now; all of it is durable
// then. The same state folder enrols as the same system again, as often as one
// likes. While a person has to approve, it asks again until ctx ends.
func Run(ctx context.Context, store *state.Store, look *inventory.Collector, r Request) (state.Enrolment, error) {
	facts, err := look.Facts()
	if err != nil {
		return state.Enrolment{}, err
	}
	bundle, err := fetch(ctx, r.Server, r.Trust)
	if err != nil {
		return state.Enrolment{}, err
	}
	if err := belongs(store, bundle); err != nil {
		return state.Enrolment{}, err
	}
	keys, err := store.MakeKeys()
	if err != nil {
		return state.Enrolment{}, err
	}
	admission, err := admit(ctx, r, bundle, keys, facts, look.BootID())
	if err != nil {
		return state.Enrolment{}, err
	}
	e := state.Enrolment{Server: r.Server, SystemID: admission.SystemID, Customer: admission.Customer}
	return e, keep(store, bundle, e)
}

// fetch gets the trust bundle. It comes over an open line from a server that
// has proven nothing: the digest decides.
func fetch(ctx context.Context, server, digest string) (*trust.Bundle, error) {
	at, err := http1.Parse(server)
	if err != nil {
		return nil, err
	}
	b, err := http1.Get(ctx, at, Path, trust.MaxBundle)
	if err != nil {
		return nil, errors.New("the trust bundle could not be fetched from " + server + ": " + err.Error() + "; nothing was changed")
	}
	bundle, err := trust.ParseBundle(b, trust.Ed25519())
	if err != nil {
		return nil, err
	}
	if bundle.Digest() != digest {
		return nil, ErrDigest
	}
	return bundle, nil
}

// belongs returns ErrOther when the system was enrolled under other roots. A
// newer version of the same director's root is the same platform.
func belongs(store *state.Store, bundle *trust.Bundle) error {
	b, err := store.Trusted(state.Bundle)
	if errors.Is(err, state.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	before, err := trust.ParseBundle(b, trust.Ed25519())
	if err != nil {
		return err
	}
	if before.Digest() == bundle.Digest() {
		return nil
	}
	if _, err := store.Enrolment(); errors.Is(err, state.ErrAbsent) {
		return nil // the attempt before did not get this far
	} else if err != nil {
		return err
	}
	if bytes.Equal(before.PortalBytes, bundle.PortalBytes) && follows(store, bundle) {
		return nil
	}
	return ErrOther
}

// follows reports whether the bundle's director root is the one in force here,
// or the next one, signed by the keys of the one in force.
func follows(store *state.Store, bundle *trust.Bundle) bool {
	b, err := store.Trusted(state.DirectorRoot)
	if err != nil {
		return false
	}
	if bytes.Equal(b, bundle.DirectorBytes) {
		return true
	}
	root, err := trust.ParseDirectorRoot(b, trust.Ed25519())
	if err != nil {
		return false
	}
	_, err = trust.UpdateDirectorRoot(root, bundle.DirectorBytes)
	return err == nil
}

// admit asks until the platform says yes or no.
func admit(ctx context.Context, r Request, bundle *trust.Bundle, keys state.Keys, facts wire.Facts, bootID string) (wire.Admission, error) {
	servers, err := link.ServerKeys(bundle.ServerKeys)
	if err != nil {
		return wire.Admission{}, err
	}
	for wait := firstPoll; ; wait = min(2*wait, longPoll) {
		admission, err := once(ctx, r, servers, keys, facts, bootID)
		var answer *wire.Error
		switch {
		case err == nil:
			return admission, nil
		case errors.As(err, &answer) && answer.Code == wire.CodePending:
			r.Log("waiting for approval: " + answer.Message)
		case errors.As(err, &answer) && answer.Code == wire.CodeRefused:
			return wire.Admission{}, errors.Join(ErrRefused, err)
		default:
			return wire.Admission{}, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return wire.Admission{}, errors.New("nobody approved this system in time; nothing was changed: run the command again when somebody will")
		}
	}
}

// once asks over one connection.
func once(ctx context.Context, r Request, servers [][channel.KeySize]byte, keys state.Keys, facts wire.Facts, bootID string) (wire.Admission, error) {
	session, err := slim.Dial(ctx, r.Server, keys.Channel, servers)
	if err != nil {
		return wire.Admission{}, err
	}
	ctx, stop := context.WithTimeout(ctx, askTime)
	peer := channel.NewPeer(session.Conn)
	served := make(chan error, 1)
	go func() { served <- peer.Serve(ctx, nil) }()
	defer func() { stop(); <-served }() // why the connection ends says nothing new
	if _, err := link.Greet(ctx, peer, wire.Greeting{Agent: r.Version, BootID: bootID}); err != nil {
		return wire.Admission{}, err
	}
	challenge, err := peer.Call(ctx, wire.Challenge, nil)
	if err != nil {
		return wire.Admission{}, err
	}
	answer, err := peer.Call(ctx, wire.Enrol, request(r, challenge, session.HandshakeHash(), keys, facts).Encode())
	if err != nil {
		return wire.Admission{}, err
	}
	admission, err := wire.DecodeAdmission(answer)
	if err == nil && admission.SystemID == "" {
		err = errors.New("the platform sent no System ID; nothing was changed")
	}
	return admission, err
}

// request makes the proofs for one connection.
func request(r Request, challenge, handshake []byte, keys state.Keys, facts wire.Facts) wire.Enrolment {
	channelKey := keys.ChannelPublic()
	e := wire.Enrolment{Facts: facts, Credential: r.Customer, IdentityKey: keys.IdentityPublic(), ChannelKey: channelKey[:]}
	if r.Customer == "" {
		e.Credential = r.Credential.ID()
	}
	binding := enrol.Binding{Challenge: challenge, Handshake: handshake, Credential: e.Credential,
		IdentityKey: e.IdentityKey, ChannelKey: e.ChannelKey}
	if r.Customer == "" {
		e.KeyProof = r.Credential.Prove(binding)
	}
	e.Identity = ed25519.Sign(keys.Identity, binding.Bytes())
	return e
}

// keep stores what was learnt; the enrolment goes last, since it makes the rest
// count.
func keep(store *state.Store, bundle *trust.Bundle, e state.Enrolment) error {
	if _, err := store.Enrolment(); errors.Is(err, state.ErrAbsent) {
		// An attempt that a crash ended may have been for another platform.
		if err := store.ForgetTrusted(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := store.SetTrusted(state.Bundle, bundle.Encode()); err != nil {
		return err
	}
	if err := keepDirector(store, bundle); err != nil {
		return err
	}
	cache, err := client.OpenFolder(store.RepositoryDir())
	if err != nil {
		return err
	}
	if err := client.Pin(cache, bundle.PortalBytes, trust.Ed25519()); err != nil {
		return err
	}
	return store.SetEnrolment(e)
}

// keepDirector stores the bundle's director root, unless a newer one followed
// it here already.
func keepDirector(store *state.Store, bundle *trust.Bundle) error {
	b, err := store.Trusted(state.DirectorRoot)
	if err == nil {
		var root *trust.DirectorRoot
		if root, err = trust.ParseDirectorRoot(b, trust.Ed25519()); err == nil && root.Version >= bundle.Director.Version {
			return nil
		}
	}
	if err != nil && !errors.Is(err, state.ErrAbsent) {
		return err
	}
	return store.SetTrusted(state.DirectorRoot, bundle.DirectorBytes)
}
