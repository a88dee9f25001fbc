package debian

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a source finds by chance goes; what it asks for, and what that needs, stays.
func TestStrangers(t *testing.T) {
	const status = `Package: libc6-dev
Status: install ok installed
Section: libdevel
Architecture: amd64
Depends: libc6 (= 2.36-9), linux-libc-dev
Provides: libc-dev

Package: linux-libc-dev
Status: install ok installed
Section: devel
Architecture: amd64

Package: build-essential
Status: install ok installed
Priority: optional
Section: devel
Architecture: amd64
Depends: libc6-dev | libc-dev,
 make (>= 4)

Package: make
Status: install ok installed
Section: devel
Architecture: amd64

Package: zlib1g-dev
Status: install ok installed
Section: libdevel
Architecture: amd64
Provides: libz-dev (= 1:1.2.13)

Package: libbrotli-dev
Status: install ok installed
Section: libdevel
Architecture: amd64

Package: xtrans-dev
Status: install ok installed
Section: devel
Architecture: all

Package: libgone-dev
Status: deinstall ok config-files
Section: libdevel
Architecture: amd64

Package: gdb
Status: install ok installed
Section: devel
Architecture: amd64

Package: nodejs
Status: install ok installed
Section: javascript
Architecture: amd64

Package: libbase-dev
Status: install ok installed
Priority: required
Section: libdevel
Architecture: amd64
`
	const search = `dpkg-query: no path found matching pattern /usr/lib/pkgconfig
libc6-dev:amd64, linux-libc-dev:amd64, make, zlib1g-dev:amd64, libbrotli-dev:amd64, nodejs: /usr/include
libbrotli-dev:amd64, zlib1g-dev:amd64, libgone-dev, libbase-dev: /usr/lib/x86_64-linux-gnu/pkgconfig
xtrans-dev: /usr/share/pkgconfig
`
	for _, test := range []struct {
		name, needs string
		want        []string
	}{
		{"nothing asked for", ", ", []string{"libbrotli-dev:amd64", "xtrans-dev", "zlib1g-dev:amd64"}},
		{"by name", "debhelper-compat (= 13),\nzlib1g-dev:native (>= 1:1.2) [linux-any] <!nocheck>, libnone-dev | libbrotli-dev", []string{"xtrans-dev"}},
		{"by what it provides", "libz-dev, xtrans-dev", []string{"libbrotli-dev:amd64"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, strangers(status, test.needs, owners(search))); diff != "" {
				t.Errorf("packages to remove (-want +got):\n%s", diff)
			}
		})
	}
}
