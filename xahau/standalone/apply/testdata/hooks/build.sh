#!/bin/sh
# build.sh OUT: compiles the test hooks to OUT/*.wasm, as those of package hook.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp "$here"/*.c "$here/../../../hook/testdata/hooks/"*.h "$here/../../../hook/testdata/hooks/build.sh" "$tmp"
exec sh "$tmp/build.sh" "$out"
