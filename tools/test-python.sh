#!/usr/bin/env bash
# The Python package: a wheel in a fresh environment, its tests, its types. Takes some minutes, for
# the library is built anew with the features of that package alone; left out, with a note, where
# Python or PyPI cannot be had.
#     tools/test-python.sh [PROFILE]        [default: release; dev is quicker to build]
# MOS_TEST_RAY=1 tries the example for Ray as well, on a cluster of two nodes on this machine.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
# The wheel, built and installed as users would, and compared with the program.
python_package() {
    local python=python3 target="${CARGO_TARGET_DIR:-$PWD/target}" folder
    local profile=${1:-release} built
    case $profile in dev) built=debug ;; *) built=$profile ;; esac
    "$python" -c 'import sys; assert sys.version_info >= (3, 10)' 2>/dev/null || {
        say "The Python package is left out: it needs Python 3.10 or newer"
        return
    }
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    local needed=("maturin>=1.9,<2" "pillow>=10" "numpy>=1.26" "pytest>=8" "mypy>=1.11")
    if ! { "$python" -m venv "$folder/venv" && PATH="$folder/venv/bin:$PATH" &&
        pip install --quiet "${needed[@]}"; }; then
        say "The Python package is left out: venv, pip or packages of PyPI cannot be had here"
        return
    fi
    # For the example on many machines, whose test is passed over without it: it is large.
    if [ -n "${MOS_TEST_RAY:-}" ]; then
        pip install --quiet "ray[data]>=2.40" psutil || say "Ray is left out: it cannot be had here"
    fi
    say "The Python package: a wheel, its tests, its types"
    # The program to compare with.
    cargo build --profile "$profile" --locked --bin mos
    cargo fmt --check -p mixofshow-python
    CARGO_TARGET_DIR=$target maturin build --profile "$profile" --locked --quiet \
        -m bindings/python/Cargo.toml -i "$folder/venv/bin/python" -o "$folder/wheel"
    pip install --quiet --no-deps "$folder"/wheel/*.whl
    # From another folder, so that what is installed is what is tested.
    cp -r bindings/python/{pyproject.toml,README.md,examples,tests} "$folder"
    (cd "$folder" && MOS_ROOT=$OLDPWD MOS="$target/$built/mos" pytest --quiet)
}
(python_package "$@")
