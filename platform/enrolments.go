package platform

import (
	"context"
	"errors"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/fleet"
	portal "livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// maxPending bounds the requests of one organisation that wait for a person, so
// that a machine with the Customer ID cannot fill the list.
const maxPending = 1000

// fingerprintDigits is how much of an identity key's hash people compare.
const fingerprintDigits = 16

// Enrolments lists machines that asked with a bare Customer ID; empty state = all.
func (s *Service) Enrolments(ctx context.Context, who access.Subject, state fleet.EnrolmentState) ([]fleet.EnrolmentRequest, error) {
	if err := who.Require(access.Viewer); err != nil {
		return nil, err
	}
	requests, err := platformdb.Enrolments(ctx, s.db, who.Organisation, state)
	for i := range requests {
		requests[i].Fingerprint = trust.HashKey(requests[i].IdentityKey)[:fingerprintDigits]
	}
	return requests, err
}

// DecideEnrolment approves or refuses a pending request. The machine learns it
// when it asks again.
func (s *Service) DecideEnrolment(ctx context.Context, who access.Subject, id string, approve bool) (fleet.EnrolmentRequest, error) {
	var request fleet.EnrolmentRequest
	if err := who.Require(access.Operator); err != nil {
		return request, err
	}
	state, action := fleet.EnrolmentRefused, "refuse.enrolment"
	if approve {
		state, action = fleet.EnrolmentApproved, "approve.enrolment"
	}
	request, err := platformdb.EnrolmentByID(ctx, s.db, who.Organisation, id)
	if err != nil {
		return request, missing(err, "enrolment request")
	}
	err = s.deed(ctx, who, action, id, string(state)+" the enrolment of "+request.Facts.Hostname, "enrolment", func(tx *store.Tx) error {
		changed, err := platformdb.DecideEnrolment(ctx, tx, who.Organisation, id, state, who.Name, s.now())
		if err == nil && !changed {
			return problem(ErrConflict, "Somebody decided on this request already. Nothing was changed; look at the list again.")
		}
		return err
	})
	if err != nil {
		return request, err
	}
	request, err = platformdb.EnrolmentByID(ctx, s.db, who.Organisation, id)
	request.Fingerprint = trust.HashKey(request.IdentityKey)[:fingerprintDigits]
	return request, err
}

// Applicant is a machine that asks for a System ID over a connection.
type Applicant struct {
	wire.Enrolment
	Challenge  []byte // the platform's nonce for this connection
	Handshake  []byte // hash of the connection's handshake
	ChannelKey []byte // the key that the connection proved
	Address    string
}

// refusal is one text for every reason why a credential does not enrol, so that
// whoever guesses learns nothing; the reason is in the log.
var errCredentialRefused = &wire.Error{Code: wire.CodeRefused,
	Message: "the key, token or Customer ID does not enrol this server: it is unknown, disabled, expired or used up; nothing was changed, get a new one from the platform"}

func malformed(text string) error { return &wire.Error{Code: wire.CodeMalformed, Message: text} }

// Enrol gives a machine its System ID. Errors are a *wire.Error for the machine,
// or the platform's own.
func (s *Service) Enrol(ctx context.Context, in Applicant) (wire.Admission, error) {
	binding := enrol.Binding{Challenge: in.Challenge, Handshake: in.Handshake, Credential: in.Credential,
		IdentityKey: in.IdentityKey, ChannelKey: in.Enrolment.ChannelKey}
	if string(in.Enrolment.ChannelKey) != string(in.ChannelKey) {
		return wire.Admission{}, malformed("the channel key is not that of this connection; nothing was changed")
	}
	if err := enrol.Verify(in.IdentityKey, binding, in.Identity); err != nil {
		return wire.Admission{}, malformed("the identity proof does not fit this connection; nothing was changed")
	}
	known, err := platformdb.ServerByChannelKey(ctx, s.db, in.ChannelKey)
	if err == nil && string(known.IdentityKey) == string(in.IdentityKey) {
		return s.admitted(ctx, known) // the same machine again: its answer was lost
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return wire.Admission{}, err
	}
	if !enrol.ValidID(in.Credential) {
		return s.enrolByCustomer(ctx, in)
	}
	token, err := platformdb.TokenByID(ctx, s.db, in.Credential)
	switch {
	case err == nil:
		return s.enrolByToken(ctx, in, token, binding)
	case errors.Is(err, store.ErrNotFound):
		return s.enrolByKey(ctx, in)
	}
	return wire.Admission{}, err
}

func (s *Service) admitted(ctx context.Context, server fleet.Server) (wire.Admission, error) {
	org, err := platformdb.Organisation(ctx, s.db, server.Organisation)
	return wire.Admission{SystemID: server.ID, Customer: org.Name}, err
}

// enrolByKey is scenario 1: the portal made the key and checks the proof.
func (s *Service) enrolByKey(ctx context.Context, in Applicant) (wire.Admission, error) {
	system, err := s.register(ctx, in, portal.Registration{KeyID: in.Credential, KeyProof: in.KeyProof})
	if err != nil {
		return wire.Admission{}, err
	}
	org, err := platformdb.OrganisationByCustomer(ctx, s.db, system.CustomerID)
	if errors.Is(err, store.ErrNotFound) {
		s.log.WarnContext(ctx, "a key registered a system for a customer that this platform does not serve", "key", in.Credential, "customer", system.CustomerID, "system", system.ID)
		return wire.Admission{}, errCredentialRefused
	}
	if err != nil {
		return wire.Admission{}, err
	}
	return s.admit(ctx, org, system, in, viaKey(in.Credential), func(*store.Tx) error { return nil })
}

// enrolByToken is scenario 2: the platform checks the token and vouches.
func (s *Service) enrolByToken(ctx context.Context, in Applicant, token platformdb.Token, binding enrol.Binding) (wire.Admission, error) {
	if err := enrol.Verify(token.Public, binding, in.KeyProof); err != nil || !s.now().Before(token.ExpiresAt) {
		s.log.WarnContext(ctx, "a one-use token was refused: its proof does not fit or it has expired", "token", token.ID, "address", in.Address)
		return wire.Admission{}, errCredentialRefused
	}
	org, err := platformdb.Organisation(ctx, s.db, token.Organisation)
	if err != nil {
		return wire.Admission{}, err
	}
	var claimed bool
	err = s.db.InTx(ctx, func(tx *store.Tx) (err error) {
		claimed, err = platformdb.ClaimToken(ctx, tx, token.ID, in.IdentityKey)
		return err
	})
	if err != nil {
		return wire.Admission{}, err
	}
	if !claimed {
		s.log.WarnContext(ctx, "a one-use token was refused: another machine used it", "token", token.ID, "address", in.Address)
		return wire.Admission{}, errCredentialRefused
	}
	system, err := s.register(ctx, in, portal.Registration{CustomerID: org.CustomerID, Credential: token.ID})
	if err != nil {
		return wire.Admission{}, errors.Join(err, s.db.InTx(ctx, func(tx *store.Tx) error { return platformdb.FreeToken(ctx, tx, token.ID) }))
	}
	return s.admit(ctx, org, system, in, "token "+token.ID, func(tx *store.Tx) error { return platformdb.UseToken(ctx, tx, token.ID, system.ID) })
}

// enrolByCustomer is scenario 2 without a token: a Customer ID is a name, so a
// person decides.
func (s *Service) enrolByCustomer(ctx context.Context, in Applicant) (wire.Admission, error) {
	org, err := platformdb.OrganisationByCustomer(ctx, s.db, in.Credential)
	if errors.Is(err, store.ErrNotFound) {
		return wire.Admission{}, errCredentialRefused
	}
	if err != nil {
		return wire.Admission{}, err
	}
	request := fleet.EnrolmentRequest{ID: newID("E"), Facts: fleet.Facts(in.Facts), Address: in.Address, State: fleet.EnrolmentPending,
		CreatedAt: s.now(), SeenAt: s.now(), IdentityKey: in.IdentityKey, ChannelKey: in.ChannelKey}
	fresh := request.ID
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		waiting, err := platformdb.CountEnrolments(ctx, tx, org.ID, fleet.EnrolmentPending)
		if err != nil {
			return err
		}
		if request, err = platformdb.PutEnrolment(ctx, tx, org.ID, request); err != nil || request.ID != fresh {
			return err
		}
		if waiting >= maxPending {
			return &wire.Error{Code: wire.CodeBusy, Message: "too many machines wait for approval; nothing was changed, ask again later"}
		}
		return platformdb.AddEvent(ctx, tx, org.ID, fleet.Event{Kind: "enrolment", Text: in.Facts.Hostname + " asks to be enrolled with the Customer ID", At: s.now()})
	})
	if err != nil {
		return wire.Admission{}, err
	}
	switch request.State {
	case fleet.EnrolmentApproved:
		system, err := s.register(ctx, in, portal.Registration{CustomerID: org.CustomerID})
		if err != nil {
			return wire.Admission{}, err
		}
		return s.admit(ctx, org, system, in, "approved by "+request.DecidedBy, func(tx *store.Tx) error {
			return platformdb.SetEnrolled(ctx, tx, org.ID, request.ID, system.ID)
		})
	case fleet.EnrolmentRefused:
		return wire.Admission{}, &wire.Error{Code: wire.CodeRefused, Message: "a person refused to enrol this server; nothing was changed, ask the administrator of the platform"}
	}
	s.hub.publish(org.ID)
	return wire.Admission{}, &wire.Error{Code: wire.CodePending, Message: "a person has to approve this server on the platform; it shows the fingerprint " +
		trust.HashKey(in.IdentityKey)[:fingerprintDigits]}
}

// register asks the portal for a System ID.
func (s *Service) register(ctx context.Context, in Applicant, r portal.Registration) (portal.System, error) {
	r.Facts, r.Challenge, r.Handshake = in.Facts, in.Challenge, in.Handshake
	r.IdentityKey, r.ChannelKey, r.IdentityProof = in.IdentityKey, in.ChannelKey, in.Identity
	limited, stop := context.WithTimeout(ctx, portalTime)
	defer stop()
	system, err := s.portal.Register(limited, r)
	var refusal *portal.Error
	switch {
	case errors.As(err, &refusal) && refusal.Status < 500 && refusal.Status != 429:
		s.log.WarnContext(ctx, "the portal refused to register a system", "credential", in.Credential, "code", refusal.Code, "detail", refusal.Detail)
		return system, errCredentialRefused
	case err != nil:
		s.log.ErrorContext(ctx, "the portal did not register a system", "error", err)
		return system, &wire.Error{Code: wire.CodeInternal, Message: "the platform cannot reach the portal; nothing was changed, ask again later"}
	}
	return system, nil
}

// admit stores an enrolled server, with what finish does, in one transaction.
func (s *Service) admit(ctx context.Context, org fleet.Organisation, system portal.System, in Applicant, via string, finish func(*store.Tx) error) (wire.Admission, error) {
	f := in.Facts
	server := fleet.Server{ID: system.ID, Organisation: org.ID, Hostname: f.Hostname, MachineID: f.MachineID, OS: f.OS, OSVersion: f.OSVersion,
		Kernel: f.Kernel, KernelID: f.KernelID, Arch: f.Arch, IdentityKey: in.IdentityKey, ChannelKey: in.ChannelKey, Via: via,
		Flags: append([]string{}, system.Flags...), EnrolledAt: s.now(), SeenAt: s.now()}
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := platformdb.PutServer(ctx, tx, server); err != nil {
			return err
		}
		if err := finish(tx); err != nil {
			return err
		}
		if err := s.audited(ctx, tx, systemSubject(org.ID), "enrol.server", server.ID, f.Hostname+" with "+via); err != nil {
			return err
		}
		return platformdb.AddEvent(ctx, tx, org.ID, fleet.Event{Kind: "enrolment", Server: server.ID, Text: f.Hostname + " enrolled as " + server.ID + " with " + via, At: s.now()})
	})
	if err != nil {
		return wire.Admission{}, err
	}
	s.hub.publish(org.ID)
	return wire.Admission{SystemID: server.ID, Customer: org.Name}, nil
}
