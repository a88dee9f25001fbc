#!/bin/sh
# Packs the agent: build-deb.sh BINARY VERSION ARCH OUT-FOLDER
# The same inputs give the same bytes.
set -eu

binary=$1 version=$2 arch=$3 out=$4
from=$PWD
here=$(cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

root=$work/root
install -D -m 0755 "$binary" "$root/usr/sbin/livemend-agent"
install -D -m 0644 "$here/agent/livemend-agent.service" "$root/lib/systemd/system/livemend-agent.service"
install -D -m 0644 "$here/agent/livemend-agent-boot.service" "$root/lib/systemd/system/livemend-agent-boot.service"
install -D -m 0644 "$here/agent/livemend-agent.8" "$root/usr/share/man/man8/livemend-agent.8"
gzip -9n "$root/usr/share/man/man8/livemend-agent.8"
install -D -m 0644 "$here/agent/copyright" "$root/usr/share/doc/livemend-agent/copyright"

install -d "$root/DEBIAN"
for script in postinst prerm postrm; do
	install -m 0755 "$here/agent/$script" "$root/DEBIAN/$script"
done
cat >"$root/DEBIAN/control" <<CONTROL
Package: livemend-agent
Version: $version
Architecture: $arch
Maintainer: Livemend <packages@livemend.invalid>
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f1)
Section: admin
Priority: optional
Suggests: openscap-scanner
Homepage: https://livemend.dev
Description: live patches for running kernels and shared libraries
 Applies signed live patches to running processes without restarting them, and
 reports with its own signature what it did.
CONTROL
(cd "$root" && find usr lib -type f -exec md5sum {} + | LC_ALL=C sort -k2 >DEBIAN/md5sums)

# One time for everything, so that the package depends on its content only.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# dpkg-deb knows what goes into a package, but its xz knows no filter for
# machine code, which saves 5 % here; so let it pack without compression, and
# put its two archives into a package as deb(5) describes it.
dpkg-deb --root-owner-group -Znone --build "$root" "$work/plain.deb" >/dev/null
case $arch in
amd64) filter=--x86 ;;
*) filter= ;;
esac
cd "$work"
printf '2.0\n' >debian-binary
dpkg-deb --ctrl-tarfile plain.deb | xz -9e >control.tar.xz
# shellcheck disable=SC2086 # no filter is no argument
dpkg-deb --fsys-tarfile plain.deb | xz $filter --lzma2=preset=9e,lc=4 >data.tar.xz
{
	printf '!<arch>\n'
	for member in debian-binary control.tar.xz data.tar.xz; do
		size=$(stat -c %s "$member")
		printf '%-16s%-12s%-6s%-6s%-8s%-10s`\n' "$member" "$SOURCE_DATE_EPOCH" 0 0 100644 "$size"
		cat "$member"
		[ $((size % 2)) = 0 ] || printf '\n'
	done
} >package.deb
dpkg-deb --info package.deb >/dev/null

case $out in /*) ;; *) out=$from/$out ;; esac
mkdir -p "$out"
mv package.deb "$out/livemend-agent_${version}_$arch.deb"
