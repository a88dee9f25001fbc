#!/bin/sh
# Links as always; for the outputs of interest it keeps what went in and out.
real=/usr/bin/x86_64-linux-gnu-ld.bfd
out=a.out prev= nameless=
for arg; do
	[ "$prev" != -o ] || out=$arg
	prev=$arg
	case $arg in
	-x | -s | -S | --discard-all | --strip-all | --strip-debug) nameless=yes ;;
	esac
done
case ${out##*/} in
@STEM@) ;;
*) exec "$real" "$@" ;;
esac
n=1
while ! mkdir "/livemend/links/$n" 2>/dev/null; do
	[ "$n" -lt 1000 ] || exit 1
	n=$((n + 1))
done
kept=/livemend/links/$n
"$real" "$@" -Map="$kept/map" || { status=$?; rm -rf "$kept"; exit $status; }
set -e
printf '%s\n%s\n' "$PWD" "$out" > "$kept/what"
cp -- "$out" "$kept/output"
i=0
# Members of a thin archive are files that the map names only for what they give.
{
	sed -n 's/^LOAD //p' "$kept/map"
	sed -n 's/^.* 0x[0-9a-f]* *0x[0-9a-f]* *\([^ ].*\.o\)$/\1/p' "$kept/map"
} | awk '!seen[$0]++' | while IFS= read -r file; do
	[ -f "$file" ] || continue
	case $file in
	/usr/* | /lib/*) continue ;;
	*.o | *.a) ;;
	*) continue ;;
	esac
	i=$((i + 1))
	cp -- "$file" "$kept/$i.in"
	printf '%s %s\n' "$i.in" "$file" >> "$kept/files"
done
if [ -n "$nameless" ]; then
	# Once more with the names of local symbols: nothing loaded differs.
	for arg; do
		shift
		case $arg in
		-x | -s | -S | --discard-all | --strip-all | --strip-debug) ;;
		*) set -- "$@" "$arg" ;;
		esac
	done
	"$real" "$@" -o "$kept/named"
fi
touch "$kept/done"
