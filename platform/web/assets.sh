#!/bin/sh
# Brings the browser assets that are not ours into assets/vendor, where they
# are embedded at build time. package-lock.json pins every byte; the folder is
# ignored by git. The pages work without it, only less comfortably.
set -eu

cd -- "$(dirname -- "$0")/../.."
lock=package-lock.json
vendor=platform/web/assets/vendor
stamp=$vendor/.lock

# Nothing to do when the same lock file was installed before.
if [ -f "$stamp" ] && cmp -s "$lock" "$stamp"; then
	exit 0
fi

npm ci --ignore-scripts --no-audit --no-fund
mkdir -p "$vendor"
cp node_modules/htmx.org/dist/htmx.min.js "$vendor/htmx.js"
cp node_modules/htmx.org/dist/ext/hx-sse.min.js "$vendor/hx-sse.js"
cp node_modules/htmx.org/LICENSE "$vendor/htmx.LICENSE"
cp "$lock" "$stamp"
