# Arguments: folder of the layers, work folder, lower layers, upper layer, command.
set -eu
base=$1 work=$2 lower=$3 upper=$4
shift 4
root=$base/root
mkdir -p "$base/$upper" "$base/$upper.work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$base/$upper,workdir=$base/$upper.work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir -p "$root/run/lock"
mount --rbind /dev "$root/dev"
# What people installed by hand is no part of the distribution.
mount -t tmpfs -o mode=0755 tmpfs "$root/usr/local"
mkdir -p "$root/livemend" "$root/build/reproducible-path"
mount --bind "$work" "$root/livemend"
mount --bind "$work/build" "$root/build/reproducible-path"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
exec nice -n 10 chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent \
	LANG=C.UTF-8 LC_ALL=C.UTF-8 TZ=UTC DEBIAN_FRONTEND=noninteractive "$@"
