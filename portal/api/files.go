package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/portal"
)

// repositoryFiles serves the published repository as plain files. They are
// signed; nobody believes them for having come from here.
type repositoryFiles struct {
	files  *blob.Dir
	server *server
}

// immutable matches names under which the content never changes: metadata with
// its version in front and targets with their hash.
var immutable = regexp.MustCompile(`^(?:[0-9]+\.(?:root|targets|snapshot)\.json|targets/.+)$`)

const (
	current    = "timestamp.json"
	cacheLong  = "public, max-age=31536000, immutable"
	cacheCheck = "no-cache" // may be kept, but is asked for again: a freeze would be noticed late
)

func (h repositoryFiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	fixed := immutable.MatchString(name)
	if !fixed && name != current {
		h.missing(w)
		return
	}
	file, err := h.files.Open(name)
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrName) {
		h.missing(w)
		return
	}
	if err != nil {
		h.server.writeProblem(w, h.server.problem(r.Context(), fmt.Errorf("opening a repository file: %w", err)))
		return
	}
	defer func() {
		if err := file.Close(); err != nil {
			h.server.log.WarnContext(r.Context(), "closing a repository file", slog.Any("error", err))
		}
	}()
	info, err := file.Stat()
	if err != nil {
		h.server.writeProblem(w, h.server.problem(r.Context(), fmt.Errorf("reading a repository file: %w", err)))
		return
	}
	header := w.Header()
	header.Set("Cache-Control", cacheCheck)
	if fixed {
		header.Set("Cache-Control", cacheLong)
	}
	header.Set("Content-Type", "application/octet-stream")
	if strings.HasSuffix(name, ".json") && !strings.Contains(name, "/") {
		header.Set("Content-Type", "application/json")
	}
	// A file is replaced by renaming, never written in place, so its time tells versions apart.
	header.Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	http.ServeContent(w, r, "", info.ModTime(), file)
}

func (h repositoryFiles) missing(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store") // a version that is not there yet will be
	h.server.writeProblem(w, newProblem(http.StatusNotFound, string(portal.NotFound), "the repository has no file of this name"))
}

// putArtifact streams an upload to the use case: it may be larger than memory
// should hold, so it is no operation with a decoded body.
func (s *server) putArtifact(w http.ResponseWriter, r *http.Request) {
	actor, err := actorOf(r.Context())
	if err == nil {
		err = s.service.StoreArtifact(r.Context(), actor, r.PathValue("sha256"), r.Body)
	}
	if err != nil {
		s.writeProblem(w, s.problem(r.Context(), err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// describeUpload adds putArtifact to the OpenAPI document.
func describeUpload(api huma.API) {
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "upload-artifact", Method: http.MethodPut, Path: prefix + "/artifacts/{sha256}",
		Summary: "Upload a file for a release (vendor)", Tags: []string{"Publishing"},
		Parameters: []*huma.Param{{
			Name: "sha256", In: "path", Required: true, Description: "SHA-256 of the file, lower-case hex",
			Schema: &huma.Schema{Type: huma.TypeString, Pattern: "^[0-9a-f]{64}$"},
		}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}},
		Responses: map[string]*huma.Response{
			"204": {Description: "Kept until its release"},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{
				"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/ErrorModel"}},
			}},
		},
	})
}
