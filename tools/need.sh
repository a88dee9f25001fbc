#!/bin/sh
# Installs what is missing from the distribution's packages, and says so:
# need.sh demo | demo-kernel | test | bench | load
# Quick when nothing is missing; then it needs neither root nor network.
set -eu

missing=
need() { # what it is for is in the package's name; $2... is how to see that it is there
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1")" = installed ]; }
postgres_there() { ls /usr/lib/postgresql/*/bin/initdb; }

need gcc has gcc
need libc6-dev test -e /usr/include/stdio.h
case $1 in
demo | demo-kernel | test)
	need binutils has objcopy
	need xz-utils has xz
	need curl has curl
	need util-linux has nsenter
	need openscap-scanner has oscap
	need npm has npm
	;;
esac
case $1 in
load | test)
	need nginx has nginx
	need haproxy has haproxy
	;;
esac
case $1 in
bench | demo-kernel | test)
	# Guests: QEMU, and what their kernels and modules are unpacked and built with.
	need qemu-system-x86 has qemu-system-x86_64
	need e2fsprogs test -x /sbin/mkfs.ext4
	need binutils has objcopy
	need xz-utils has xz
	need zstd has zstd
	need make has make
	need gcc-12 has gcc-12
	need libelf1 installed libelf1
	;;
esac
case $1 in
demo-kernel | test)
	# What a kernel's source is configured and compiled with.
	need bc has bc
	need bison has bison
	need flex has flex
	need patch has patch
	need libelf-dev test -e /usr/include/libelf.h
	need libssl-dev test -e /usr/include/openssl/evp.h
	;;
esac
if [ "$1" = test ]; then
	need g++ has g++
	need python3 test -x /usr/bin/python3
	need postgresql postgres_there
	need chromium has chromium
	need fonts-dejavu-core installed fonts-dejavu-core
	need shellcheck has shellcheck
	need rpm has rpmbuild
fi
if ! has go >/dev/null; then
	echo "need.sh: Go 1.26 is missing: install it from https://go.dev/dl and put it on the PATH" >&2
	exit 1
fi
[ -n "$missing" ] || exit 0

if ! has apt-get >/dev/null; then
	echo "need.sh: missing:$missing; this machine has no apt-get, so install them by hand" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
echo "installing from the distribution's packages:$missing"
case $missing in
*postgresql*)
	# The tests start a cluster of their own; the package shall start none.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		$sudo mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
	fi
	;;
esac
case $missing in
*nginx* | *haproxy*)
	# The tests start their own; the packages shall start none.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' | $sudo install -m 755 /dev/stdin /usr/sbin/policy-rc.d
		trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
		trap 'exit 1' INT TERM
	fi
	;;
esac
# shellcheck disable=SC2086 # the list is meant to be split
install_missing() {
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		-o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 $missing </dev/null
}
if ! $sudo apt-get update -q -o DPkg::Lock::Timeout=300 || ! install_missing; then
	echo "need.sh: not everything could be installed; is the distribution's archive reachable?" >&2
	exit 1
fi
