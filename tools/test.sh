#!/usr/bin/env bash
# Everything that must pass: formatting, lints, all tests, and the kernels again with vectors of other widths.
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
say "Tests"
cargo test --release --locked
# Mesa's software driver runs subgroups of 4, 8 or 16 lanes, by the width of its vectors in bits; 256 is what it chose above on
# most machines. Its cache does not tell them apart, so each has a cache of its own.
for bits in 128 512; do
    say "Kernels with $((bits / 32)) lanes"
    LP_NATIVE_VECTOR_WIDTH=$bits MESA_SHADER_CACHE_DIR="$PWD/target/shader-cache-$bits" cargo test --release --locked --test kernels --test backward
done
# Kernels for cards, with subgroups of 8, and for CPUs with as many vector registers (32 or 16) as this one has not. Cooperative
# matrices are tested where the adapter has them (Mesa's software driver since 26), and passed over with a note where not.
if grep -qw avx512vl /proc/cpuinfo 2>/dev/null; then registers=few; else registers=many; fi
for schedule in staged passed "$registers" matrices; do
    say "Kernels: $schedule"
    MOS_TEST_SCHEDULE=$schedule cargo test --release --locked --test kernels --test backward
done
say "All tests passed"
