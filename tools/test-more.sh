#!/usr/bin/env bash
# What asks for more than tools/test.sh, which comes first: the standard libraries of other systems.
# What cannot be had is left out, with a note.
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

say "All further tests passed"
