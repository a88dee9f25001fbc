package client

import (
	"time"

	"livemend.dev/livemend/wire"
)

// Limits on what the portal takes. Sizes are bytes.
const (
	MaxName      = 200
	MaxServers   = 1_000_000 // of one registration key
	MaxTargets   = 16 << 20  // signed targets metadata
	MaxArtifact  = 64 << 20  // one file of the repository
	MaxArtifacts = 1000      // new files in one release
)

// Customer is one of the partner's customers. Its ID is a readable name such
// as C-7K2M9QXA and never a secret.
type Customer struct {
	ID   string `json:"id" doc:"readable name, never a secret" example:"C-7K2M9QXA"`
	Name string `json:"name" doc:"name for people"`
}

// NewCustomer asks for a customer.
type NewCustomer struct {
	Name string `json:"name" minLength:"1" maxLength:"200" doc:"name for people"`
}

// NewKey asks for a registration key.
type NewKey struct {
	CustomerID  string    `json:"customer_id" maxLength:"200" doc:"customer whose servers the key registers"`
	Note        string    `json:"note,omitempty" maxLength:"200" doc:"for people"`
	ServerLimit int64     `json:"server_limit" minimum:"1" maximum:"1000000" doc:"how many servers may register with it"`
	ExpiresAt   time.Time `json:"expires_at,omitzero" doc:"no registration from then on; absent: never"`
}

// Key is a registration key without its secret, which the portal does not have.
type Key struct {
	ID          string    `json:"id" doc:"public part of the key's text"`
	CustomerID  string    `json:"customer_id"`
	Note        string    `json:"note,omitempty"`
	ServerLimit int64     `json:"server_limit"`
	Servers     int64     `json:"servers" doc:"how many servers are registered with it now"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	Enabled     bool      `json:"enabled"`
	CreatedAt   time.Time `json:"created_at"`
}

// CreatedKey is a new key with its text, which is shown this once: the portal
// keeps only the public half.
type CreatedKey struct {
	Key
	Text string `json:"text" doc:"the whole key, secret included; never shown again"`
}

// KeyChange changes a registration key.
type KeyChange struct {
	Enabled bool `json:"enabled"`
}

// Registration asks for a System ID, on behalf of an agent that enrolled at the
// platform. With a KeyID the portal checks KeyProof with the key's public half
// (scenario 1). Without one the platform vouches for the agent with its own
// credential and names the customer (scenario 2). Both ways the identity proof
// has to fit; package enrol describes what the proofs are made over.
type Registration struct {
	CustomerID    string // required without KeyID; with it "" or the key's customer
	KeyID         string // "" when the platform vouches
	Credential    string // scenario 2: what the identity proof names, such as a token's id; "" means the CustomerID
	Facts         wire.Facts
	Challenge     []byte // the platform's nonce
	Handshake     []byte // hash of the connection's handshake
	KeyProof      []byte // by the registration key; empty without KeyID
	IdentityKey   []byte // the agent's Ed25519 public key
	ChannelKey    []byte // the agent's X25519 public key
	IdentityProof []byte // by the identity key
}

// RegistrationRequest is a Registration as the REST interface takes it.
type RegistrationRequest struct {
	CustomerID    string `json:"customer_id,omitempty" maxLength:"200"`
	KeyID         string `json:"key_id,omitempty" maxLength:"200"`
	Credential    string `json:"credential,omitempty" maxLength:"200" doc:"what the identity proof names, when the platform vouches for a one-use token"`
	Facts         Facts  `json:"facts"`
	Challenge     []byte `json:"challenge" maxLength:"1024"`
	Handshake     []byte `json:"handshake" maxLength:"1024"`
	KeyProof      []byte `json:"key_proof,omitempty" maxLength:"1024"`
	IdentityKey   []byte `json:"identity_key" maxLength:"1024"`
	ChannelKey    []byte `json:"channel_key" maxLength:"1024"`
	IdentityProof []byte `json:"identity_proof" maxLength:"1024"`
}

// Facts are wire.Facts as the REST interface takes them.
type Facts struct {
	Hostname  string `json:"hostname" maxLength:"200"`
	MachineID string `json:"machine_id" maxLength:"200"`
	OS        string `json:"os" maxLength:"200"`
	OSVersion string `json:"os_version" maxLength:"200"`
	Kernel    string `json:"kernel" maxLength:"200"`
	KernelID  string `json:"kernel_id" maxLength:"200"`
	Arch      string `json:"arch" maxLength:"200"`
}

func (r Registration) request() RegistrationRequest {
	return RegistrationRequest{
		CustomerID: r.CustomerID, KeyID: r.KeyID, Credential: r.Credential, Facts: Facts(r.Facts),
		Challenge: r.Challenge, Handshake: r.Handshake, KeyProof: r.KeyProof,
		IdentityKey: r.IdentityKey, ChannelKey: r.ChannelKey, IdentityProof: r.IdentityProof,
	}
}

// FlagClone marks a system whose machine-id another system of the customer has
// too: a clone of it, or the same machine installed again.
const FlagClone = "clone-or-reinstall"

// System is a registered server.
type System struct {
	ID         string    `json:"id" example:"S-7K2M9QXA4D1P"`
	CustomerID string    `json:"customer_id"`
	Hostname   string    `json:"hostname"`
	Flags      []string  `json:"flags" nullable:"false" doc:"what a person should look at, such as clone-or-reinstall"`
	CreatedAt  time.Time `json:"created_at"`
}

// Release asks for the publication of signed targets metadata.
type Release struct {
	Targets   []byte     `json:"targets" doc:"signed targets metadata"`
	Artifacts []Artifact `json:"artifacts" nullable:"false" maxItems:"1000" doc:"new files, uploaded before"`
}

// Artifact says which uploaded file is which target.
type Artifact struct {
	Path   string `json:"path" maxLength:"1024" doc:"target path"`
	SHA256 string `json:"sha256" pattern:"^[0-9a-f]{64}$" doc:"of the uploaded file"`
}
