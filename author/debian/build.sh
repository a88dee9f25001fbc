# Arguments: folder to build in, target of debian/rules, processes, more compiler flags.
set -eu
cd "$1"
for name in ld x86_64-linux-gnu-ld; do
	rm -f "/usr/bin/$name"
	cp /livemend/ld "/usr/bin/$name"
	chmod 755 "/usr/bin/$name"
done
umask 022
# Unchanged files need not be compiled again; the result is the same. How each
# object is compiled is kept.
mkdir -p /livemend-cc
for name in /usr/lib/ccache/*; do
	cp /livemend/cc "/livemend-cc/${name##*/}"
	chmod 755 "/livemend-cc/${name##*/}"
done
PATH=/livemend-cc:/usr/lib/ccache:$PATH
export CCACHE_DIR=/livemend/ccache CCACHE_COMPILERCHECK=content
export DEB_BUILD_OPTIONS="nocheck parallel=$3"
# Lists of symbols speak of the newest state of a source.
export DPKG_GENSYMBOLS_CHECK_LEVEL=0
export DEB_CFLAGS_APPEND="$4" DEB_CXXFLAGS_APPEND="$4"
dpkg-source --before-build .
exec dpkg-buildpackage -us -uc -d -T "$2"
