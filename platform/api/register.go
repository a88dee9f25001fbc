package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/platform"
)

// nothing is the input of an operation that needs none, and the output of one
// that says nothing.
type nothing struct{}

// answer is the output of an operation.
type answer[T any] struct{ Body T }

// body is the input of an operation that takes only a body.
type body[T any] struct{ Body T }

// byID is the input of an operation on one thing.
type byID struct {
	ID string `path:"id" maxLength:"200"`
}

// Piece is which piece of a list is wanted. Its name starts with a capital
// because parameters of other embedded types are not read.
type Piece struct {
	After string `query:"after" maxLength:"1000" doc:"next of the page before"`
	Limit int    `query:"limit" minimum:"0" maximum:"500" doc:"0: 50"`
}

func (l Piece) piece() platform.List { return platform.List{After: l.After, Limit: l.Limit} }

// operation is one line of the interface.
type operation struct {
	method  string
	path    string
	summary string
	id      string
	max     int64 // bytes of the body; 0 = maxBody
}

// add registers an operation that only somebody who is known may ask for.
func add[I, O any](s *server, o operation, do func(context.Context, access.Subject, *I) (O, error)) {
	max := o.max
	if max == 0 {
		max = maxBody
	}
	huma.Register(s.api, huma.Operation{OperationID: o.id, Method: o.method, Path: Prefix + o.path, Summary: o.summary, MaxBodyBytes: max,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusBadGateway}},
		func(ctx context.Context, in *I) (*answer[O], error) {
			c := callerOf(ctx)
			if !c.known {
				return nil, s.refusal(ctx, access.ErrCredentials)
			}
			out, err := do(ctx, c.subject, in)
			if err != nil {
				return nil, s.refusal(ctx, err)
			}
			return &answer[O]{out}, nil
		})
}

// act is add for an operation that says nothing.
func act[I any](s *server, o operation, do func(context.Context, access.Subject, *I) error) {
	huma.Register(s.api, huma.Operation{OperationID: o.id, Method: o.method, Path: Prefix + o.path, Summary: o.summary, MaxBodyBytes: maxBody, DefaultStatus: http.StatusNoContent,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusBadGateway}},
		func(ctx context.Context, in *I) (*nothing, error) {
			c := callerOf(ctx)
			if !c.known {
				return nil, s.refusal(ctx, access.ErrCredentials)
			}
			if err := do(ctx, c.subject, in); err != nil {
				return nil, s.refusal(ctx, err)
			}
			return nil, nil
		})
}

// items makes an empty list an empty list, and not null.
func items[T any](list []T, err error) ([]T, error) {
	if list == nil {
		list = []T{}
	}
	return list, err
}

func (s *server) register() {
	s.registerPeople()
	s.registerServers()
	s.registerPatches()
	s.registerJobs()
}
