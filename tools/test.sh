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
say "Tests"
cargo test --release --locked
# The kernels again as other devices run them: those for cards; those for CPUs with as many vector
# registers (32 or 16) as this one has not; those that pass loads round subgroups; and, where the
# adapter has them (Mesa's software driver since 26) and else passed over with a note, those of
# cooperative matrices. Mesa's driver runs subgroups of 4, 8 or 16 lanes, by the width of its
# vectors in bits, so each goes with a width of its own (8 lanes is what the last two are for), and
# a cache of its own: Mesa's does not tell widths apart.
if grep -qw avx512vl /proc/cpuinfo 2>/dev/null; then registers=few; else registers=many; fi
for way in "staged 128" "$registers 512" "passed 256" "matrices 256"; do
    read -r schedule bits <<<"$way"
    say "Kernels: $schedule, with $((bits / 32)) lanes"
    MOS_TEST_SCHEDULE=$schedule LP_NATIVE_VECTOR_WIDTH=$bits MESA_SHADER_CACHE_DIR="$PWD/target/shader-cache-$bits" \
        cargo test --release --locked --test kernels --test backward
done
say "All tests passed"
