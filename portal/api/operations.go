package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/wire"
)

// maxRelease bounds, in bytes, the body of a release: targets metadata in
// base 64 and the list of artifacts.
const maxRelease = client.MaxTargets*4/3 + client.MaxArtifacts*2048

// body is an answer.
type body[T any] struct{ Body T }

// named is a request about the object in its path.
type named struct {
	ID string `path:"id" maxLength:"200"`
}

// of is a request about one customer's objects.
type of struct {
	Customer string `query:"customer_id" required:"true" maxLength:"200"`
}

// add registers one operation of an actor whom the guard has proved.
func add[I, O any](s *server, api huma.API, op huma.Operation, f func(context.Context, portal.Actor, *I) (*O, error)) {
	op.Path = prefix + op.Path
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		actor, err := actorOf(ctx)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		out, err := f(ctx, actor, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

func (s *server) register(api huma.API) {
	add(s, api, huma.Operation{
		OperationID: "create-customer", Method: http.MethodPost, Path: "/customers", DefaultStatus: http.StatusCreated,
		Summary: "Make a customer", Tags: []string{"Customers"},
	}, func(ctx context.Context, a portal.Actor, in *body[client.NewCustomer]) (*body[client.Customer], error) {
		c, err := s.service.CreateCustomer(ctx, a, in.Body.Name)
		return &body[client.Customer]{customer(c)}, err
	})
	add(s, api, huma.Operation{
		OperationID: "list-customers", Method: http.MethodGet, Path: "/customers",
		Summary: "The partner's customers", Tags: []string{"Customers"},
	}, func(ctx context.Context, a portal.Actor, _ *struct{}) (*body[[]client.Customer], error) {
		list, err := s.service.Customers(ctx, a)
		return &body[[]client.Customer]{each(list, customer)}, err
	})
	s.registerKeys(api)
	s.registerSystems(api)
	add(s, api, huma.Operation{
		OperationID: "release", Method: http.MethodPost, Path: "/releases", DefaultStatus: http.StatusNoContent, MaxBodyBytes: maxRelease,
		Summary: "Make signed targets metadata the current one (vendor)", Tags: []string{"Publishing"},
	}, func(ctx context.Context, a portal.Actor, in *body[client.Release]) (*struct{}, error) {
		return nil, s.service.Publish(ctx, a, in.Body.Targets, each(in.Body.Artifacts, func(f client.Artifact) portal.Artifact {
			return portal.Artifact(f)
		}))
	})
	describeUpload(api)
}

func (s *server) registerKeys(api huma.API) {
	tags := []string{"Registration keys"}
	add(s, api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: "/keys", DefaultStatus: http.StatusCreated,
		Summary: "Make a registration key; its text is in this answer only", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *body[client.NewKey]) (*body[client.CreatedKey], error) {
		k, text, err := s.service.CreateKey(ctx, a, portal.NewKey{
			Customer: in.Body.CustomerID, Note: in.Body.Note, ServerLimit: in.Body.ServerLimit, Expires: in.Body.ExpiresAt,
		})
		return &body[client.CreatedKey]{client.CreatedKey{Key: key(k), Text: text}}, err
	})
	add(s, api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/keys",
		Summary: "A customer's registration keys", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *of) (*body[[]client.Key], error) {
		list, err := s.service.Keys(ctx, a, in.Customer)
		return &body[[]client.Key]{each(list, key)}, err
	})
	add(s, api, huma.Operation{
		OperationID: "change-key", Method: http.MethodPatch, Path: "/keys/{id}", DefaultStatus: http.StatusNoContent,
		Summary: "Enable or disable a registration key", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *struct {
		ID   string `path:"id" maxLength:"200"`
		Body client.KeyChange
	}) (*struct{}, error) {
		return nil, s.service.SetKeyEnabled(ctx, a, in.ID, in.Body.Enabled)
	})
	add(s, api, huma.Operation{
		OperationID: "delete-key", Method: http.MethodDelete, Path: "/keys/{id}", DefaultStatus: http.StatusNoContent,
		Summary: "Remove a registration key; its servers stay", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *named) (*struct{}, error) {
		return nil, s.service.DeleteKey(ctx, a, in.ID)
	})
}

func (s *server) registerSystems(api huma.API) {
	tags := []string{"Systems"}
	add(s, api, huma.Operation{
		OperationID: "register-system", Method: http.MethodPost, Path: "/systems",
		Summary: "Get a System ID for a server, by registration key or vouched for", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *body[client.RegistrationRequest]) (*body[client.System], error) {
		r := &in.Body
		registered, err := s.service.Register(ctx, a, portal.Registration{
			Customer: r.CustomerID, KeyID: r.KeyID, Credential: r.Credential, Facts: wire.Facts(r.Facts),
			Challenge: r.Challenge, Handshake: r.Handshake, KeyProof: r.KeyProof,
			IdentityKey: r.IdentityKey, ChannelKey: r.ChannelKey, IdentityProof: r.IdentityProof,
		})
		return &body[client.System]{system(registered)}, err
	})
	add(s, api, huma.Operation{
		OperationID: "list-systems", Method: http.MethodGet, Path: "/systems",
		Summary: "A customer's systems", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *of) (*body[[]client.System], error) {
		list, err := s.service.Systems(ctx, a, in.Customer)
		return &body[[]client.System]{each(list, system)}, err
	})
	add(s, api, huma.Operation{
		OperationID: "remove-system", Method: http.MethodDelete, Path: "/systems/{id}", DefaultStatus: http.StatusNoContent,
		Summary: "Forget a system and free its licence", Tags: tags,
	}, func(ctx context.Context, a portal.Actor, in *named) (*struct{}, error) {
		return nil, s.service.RemoveSystem(ctx, a, in.ID)
	})
}
