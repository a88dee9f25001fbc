#!/bin/sh
# Builds the agent for size: build-agent.sh OUT VERSION ARCH [symbols]
# No inlining outside the cryptography, which would become slow without it.
# With symbols the program is not stripped, to see what is in it.
set -eu

out=$1 version=$2 arch=$3
strip='-s -w'
if [ "${4:-}" = symbols ]; then
	strip=
fi
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd -- "$(dirname -- "$0")/.."
exec env GOOS=linux GOARCH="$arch" CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags="$strip -X main.version=$version" \
	-gcflags=all=-l -gcflags=crypto/...= -gcflags=filippo.io/...= -gcflags=golang.org/x/crypto/...= \
	-o "$out" ./cmd/livemend-agent
