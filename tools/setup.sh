# Sourced by the other scripts: from the repository's root, builds the program and, for tests, sees
# to it that there is a graphics adapter. Installs what is missing on Debian and Ubuntu, and says
# what to do elsewhere. Runs in bash 3.2 too, which macOS has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Mesa's layer that asks the desktop for its favourite adapter complains where there is no desktop.
[ -n "${XDG_RUNTIME_DIR:-}" ] || export NODEVICE_SELECT=1

say() { printf '\n== %s\n' "$*" >&2; }
give_up() { printf '\nerror: %s\n' "$*" >&2; exit 1; }

# Installs packages, where that is possible.
get_packages() {
    command -v apt-get >/dev/null || return 1
    # `env` alone changes nothing; an empty array would be an error under `set -u` in old shells.
    local as_root=env
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || return 1
        as_root=sudo
    fi
    say "Installing $*"
    "$as_root" apt-get update -qq &&
        "$as_root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Whether version $1 (such as 1.90) is $2 or newer.
at_least() {
    local found=$1. wanted=$2.
    while [ -n "$wanted" ]; do
        [ "${found%%.*}" -eq "${wanted%%.*}" ] 2>/dev/null || { [ "${found%%.*}" -gt "${wanted%%.*}" ] 2>/dev/null; return; }
        wanted=${wanted#*.}
        found=${found#*.}
        [ -n "$found" ] || found=0.
    done
}

need_rust() {
    # A fresh rustup is not on the path of shells that are open already.
    if ! command -v cargo >/dev/null && [ -f "${HOME:-}/.cargo/env" ]; then . "${HOME:-}/.cargo/env"; fi
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    local advice="Rust $wanted or newer is needed: see https://rustup.rs, or
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    command -v cargo >/dev/null || give_up "there is no cargo on this machine. $advice"
    found=$(rustc --version | cut -d' ' -f2)
    at_least "${found%%-*}" "$wanted" || give_up "this is Rust $found. $advice"
    # On Windows, Rust finds Microsoft's linker by itself, or says what is missing; everywhere else
    # it calls cc.
    case $(rustc -vV | sed -n 's/^host: //p') in
        *-msvc) ;;
        *) command -v cc >/dev/null || get_packages gcc libc6-dev || give_up "Rust needs a linker: install gcc or clang" ;;
    esac
}

# The program, built with optimisations; tests are built with the same settings, so nothing is built
# twice.
build() {
    need_rust
    say "Building (the first time this takes some minutes)"
    cargo build --release --locked
    mos="${CARGO_TARGET_DIR:-target}/release/mos"
}

has_adapter() {
    case $("$mos" devices --json 2>/dev/null) in *'"backend"'*) return 0 ;; *) return 1 ;; esac
}

# For tests of the graphics kernels: a software Vulkan driver, if there is no graphics adapter at
# all.
need_adapter() {
    has_adapter || get_packages libvulkan1 mesa-vulkan-drivers || true
    has_adapter || give_up "the tests need a graphics adapter: install a Vulkan driver, such as Mesa's software one"
    say "Devices"
    "$mos" devices
}
