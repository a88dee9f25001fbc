package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:generate sh assets.sh
//go:generate go tool -modfile=../../tools/go.mod templ generate

// embedded holds our own assets and, when assets.sh has run before the build,
// the vendored ones under vendor/.
//
//go:embed assets
var embedded embed.FS

// asset is one file that a page can name by an address that changes with its
// content, so that browsers may keep it for good.
type asset struct {
	body    []byte
	kind    string
	address string
}

// assets serves the embedded files. It is complete after newAssets and never
// changes, so it is safe for concurrent use.
type assets struct {
	byName map[string]asset
}

// kinds of the files that are served; a file of another kind is not.
var kinds = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func newAssets(files fs.FS) (*assets, error) {
	a := &assets{byName: map[string]asset{}}
	err := fs.WalkDir(files, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		kind, ok := kinds[path.Ext(name)]
		if !ok {
			return nil
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		short := strings.TrimPrefix(name, "assets/")
		a.byName[short] = asset{
			body:    body,
			kind:    kind,
			address: "/assets/" + short + "?v=" + hex.EncodeToString(sum[:6]),
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the embedded assets: %w", err)
	}
	return a, nil
}

// url returns the address of an asset, or "" when this build does not hold it.
func (a *assets) url(name string) string { return a.byName[name].address }

func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/assets/")
	file, ok := a.byName[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", file.kind)
	if r.URL.RawQuery != "" && strings.HasSuffix(file.address, "?"+r.URL.RawQuery) {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(file.body)))
}
