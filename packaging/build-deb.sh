#!/bin/sh
# Packs the agent: build-deb.sh BINARY VERSION ARCH OUT-FOLDER
# The same inputs give the same bytes.
set -eu

binary=$1 version=$2 arch=$3 out=$4
here=$(cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

root=$work/root
install -D -m 0755 "$binary" "$root/usr/sbin/livemend-agent"
install -D -m 0644 "$here/agent/livemend-agent.service" "$root/lib/systemd/system/livemend-agent.service"
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
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz -z9 -Sextreme --build "$root" "$work/package.deb" >/dev/null
mv "$work/package.deb" "$out/livemend-agent_${version}_$arch.deb"
