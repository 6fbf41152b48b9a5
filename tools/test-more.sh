#!/usr/bin/env bash
# What asks for more than tools/test.sh, which comes first: the standard libraries of other systems,
# and Python's packages. What cannot be had is left out, with a note.
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

# The wheel, built and installed as users would, and compared with the program.
python_package() {
    local python=python3 target="${CARGO_TARGET_DIR:-$PWD/target}" folder
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
    say "The Python package: a wheel, its tests, its types"
    [ -x "$target/release/mos" ] || build
    cargo fmt --check -p mixofshow-python
    CARGO_TARGET_DIR=$target maturin build --release --locked --quiet \
        -m bindings/python/Cargo.toml -i "$folder/venv/bin/python" -o "$folder/wheel"
    pip install --quiet --no-deps "$folder"/wheel/*.whl
    # From another folder, so that what is installed is what is tested.
    cp -r bindings/python/{pyproject.toml,README.md,examples,tests} "$folder"
    (cd "$folder" && MOS_ROOT=$OLDPWD MOS="$target/release/mos" pytest --quiet)
}
(python_package)
say "All further tests passed"
