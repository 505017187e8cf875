#!/bin/sh
# build.sh OUT: compiles the test hooks to OUT/*.wasm. Needs clang, wasm-ld (lld)
# and wasm-opt (binaryen). The compiler must not optimize, because it moves code in
# front of the guards of loops; these passes of wasm-opt do not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$here"
for c in *.c; do
	name=${c%.c}
	clang --target=wasm32-unknown-unknown -nostdlib -ffreestanding -fno-builtin -O0 \
		-Wall -Werror -Wno-unused -c -o "$tmp/$name.o" "$c"
	wasm-ld --no-entry --allow-undefined --export=hook --export-if-defined=cbak --strip-all \
		-z stack-size=4096 --initial-memory=65536 --max-memory=65536 -o "$tmp/$name.wasm" "$tmp/$name.o"
	wasm-opt --simplify-locals-nostructure --precompute --vacuum --coalesce-locals --vacuum \
		--remove-unused-module-elements --strip-producers --strip-target-features \
		-o "$out/$name.wasm" "$tmp/$name.wasm"
done
