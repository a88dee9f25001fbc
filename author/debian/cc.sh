#!/bin/sh
# Compiles as always; keeps how, when an object is made.
PATH=${PATH#*/livemend-cc:}
name=${0##*/}
"$name" "$@" || exit
for arg; do
	if [ "$arg" = -c ]; then
		kept=/livemend/commands/$$
		while [ -e "$kept" ]; do kept=$kept.1; done
		printf '%s\0' "$PWD" "$name" "$@" > "$kept"
		exit
	fi
done
