#!/usr/bin/env bash
# What asks for more than tools/test.sh, which comes first: the standard libraries of other systems
# (types and borrows), an emulator of ARM (the processor's kernels), the package for registries (its
# size), and these scripts, which can be run by themselves:
#     tools/test-c.sh               the library for C, its examples under AddressSanitizer
#     tools/test-slurm.sh           a fusion as jobs of a real slurmctld and slurmd
#     tools/test-object-store.sh    statistics, evaluations and pictures by s3://, a real server
#     tools/test-python.sh          the wheel, its tests and types; with MOS_TEST_RAY=1 on Ray
#     tools/test-server.sh          mos serve by others' clients and a headless browser
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

# The kernels of ARM's vectors, emulated: right or wrong, not how fast.
say "The processor's kernels on ARM"
if rustup target add aarch64-unknown-linux-gnu >/dev/null 2>&1 && { [ "$(uname -m)" = x86_64 ] &&
    { command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc ||
        get_packages qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross; } >/dev/null; }; then
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
        cargo test --locked --package mixofshow-cpu-kernels --target aarch64-unknown-linux-gnu
else
    say "ARM is left out: no emulator or no compiler for it can be had here"
fi

say "The package for registries"
# They take 10 MB. What is in it is built where it is published.
cargo package --locked --allow-dirty --no-verify --quiet -p mixofshow-cpu-kernels -p mixofshow
package=$(ls -t "${CARGO_TARGET_DIR:-target}"/package/mixofshow-[0-9]*.crate | head -1)
bytes=$(wc -c <"$package")
[ "$bytes" -lt 10000000 ] || give_up "$package has $bytes bytes: a registry takes 10 MB"
say "$package has $bytes bytes"

tools/test-c.sh
tools/test-slurm.sh
tools/test-object-store.sh
tools/test-python.sh
tools/test-server.sh
say "All further tests passed"
