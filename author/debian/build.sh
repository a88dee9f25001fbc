# Arguments: folder to build in, target of debian/rules, processes, more compiler flags.
set -eu
cd "$1"
for name in ld x86_64-linux-gnu-ld; do
	rm -f "/usr/bin/$name"
	cp /livemend/ld "/usr/bin/$name"
	chmod 755 "/usr/bin/$name"
done
umask 022
export DEB_BUILD_OPTIONS="nocheck parallel=$3"
export DEB_CFLAGS_APPEND="$4" DEB_CXXFLAGS_APPEND="$4"
dpkg-source --before-build .
exec dpkg-buildpackage -us -uc -d -T "$2"
