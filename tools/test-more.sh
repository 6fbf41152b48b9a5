#!/usr/bin/env bash
# What asks for more than tools/test.sh, which comes first: the standard libraries of other systems,
# the packages for C and Python, the package for registries. What cannot be had is left out, with a
# note.
#     tools/test-more.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
for target in aarch64-unknown-linux-gnu x86_64-pc-windows-gnu aarch64-apple-darwin; do
    if rustup target add "$target" >/dev/null 2>&1; then
        say "The program for $target: types and borrows"
        cargo check --locked --target "$target" --lib --bins
    else
        say "$target is left out: its standard library cannot be had here"
    fi
done

say "The package for registries"
# They take 10 MB. What is in it is built where it is published.
cargo package --locked --allow-dirty --no-verify --quiet -p mixofshow-cpu-kernels -p mixofshow
package=$(ls -t "${CARGO_TARGET_DIR:-target}"/package/mixofshow-[0-9]*.crate | head -1)
bytes=$(wc -c <"$package")
[ "$bytes" -lt 10000000 ] || give_up "$package has $bytes bytes: a registry takes 10 MB"
say "$package has $bytes bytes"

tools/test-c.sh
tools/test-slurm.sh
tools/test-python.sh
say "All further tests passed"
