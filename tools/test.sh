#!/usr/bin/env bash
# Everything that must pass: formatting, lints, all tests, and the kernels again as other devices
# run them.
#     tools/test.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

build
need_adapter
say "Formatting and lints"
{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || rustup component add rustfmt clippy ||
    give_up "cargo fmt and cargo clippy are needed: install rustfmt and clippy"
cargo fmt --check
cargo clippy --release --locked --all-targets -- -D warnings
# Kernels run on the adapter that is there; networks, pictures, tuning and fusion on a graphics card
# or else on the processor, and a few of each on the adapter (tests/common/chosen.rs).
say "Tests"
cargo test --release --locked
# The kernels again as other devices run them: with other sizes than the standard ones; and of
# cooperative matrices, where the adapter has them (Mesa's software driver since 26) and else passed
# over with a note. Mesa's driver runs subgroups of 4, 8 or 16 lanes, by the width of its vectors in
# bits, so each goes with a width of its own (8 lanes are what it takes by itself, and what matrices
# want), and a cache of its own: Mesa's does not tell widths apart.
for way in "staged 128" "sizes 512" "matrices 256"; do
    read -r schedule bits <<<"$way"
    say "Kernels: $schedule, with $((bits / 32)) lanes"
    MOS_TEST_SCHEDULE=$schedule LP_NATIVE_VECTOR_WIDTH=$bits MESA_SHADER_CACHE_DIR="$PWD/target/shader-cache-$bits" \
        cargo test --release --locked --test kernels --test backward
done
say "All tests passed"
