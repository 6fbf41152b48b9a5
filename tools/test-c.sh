#!/usr/bin/env bash
# The library for C and C++: its own tests, its header, and programs that are built with what it
# installs and run under AddressSanitizer: the examples, and all that a program can do wrong. Left
# out, with a note, where there is no compiler with it.
#     tools/test-c.sh [PROFILE]        [default: release; dev is quicker to build]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
c_package() {
    local profile=${1:-release} target="${CARGO_TARGET_DIR:-$PWD/target}" built folder root=$PWD
    case $profile in dev) built=debug ;; *) built=$profile ;; esac
    command -v pkg-config >/dev/null && command -v g++ >/dev/null ||
        get_packages g++ pkg-config || {
        say "The library for C is left out: a C++ compiler and pkg-config cannot be had here"
        return
    }
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    local checked="-g -O1 -fsanitize=address -fno-omit-frame-pointer -Wall -Wextra -Werror"
    if ! echo 'int main(void) { return 0; }' |
        gcc -x c - -fsanitize=address -o "$folder/empty" 2>/dev/null || ! "$folder/empty"; then
        say "AddressSanitizer is not here: the programs run without it"
        checked="-g -O1 -Wall -Wextra -Werror"
    fi
    say "The library for C: its tests and its header"
    cargo test --locked -p mixofshow-c-header
    # With the program itself, so that both are built with the same features, once.
    cargo test --profile "$profile" --locked -p mixofshow -p mixofshow-c --lib border
    cargo build --profile "$profile" --locked -p mixofshow -p mixofshow-c
    say "The library for C: installed, and used from there"
    MOS_BUILT=$built bindings/c/install.sh "$folder/usr"
    export PKG_CONFIG_PATH="$folder/usr/lib/pkgconfig" LD_LIBRARY_PATH="$folder/usr/lib"
    local shared static
    shared=$(pkg-config --cflags --libs mixofshow)
    static=$(pkg-config --cflags --static --libs mixofshow)
    static=${static/-lmixofshow/$folder/usr/lib/libmixofshow.a}
    (
        cd "$folder"
        # shellcheck disable=SC2086
        {
            gcc -std=c11 $checked "$root/bindings/c/tests/edges.c" $shared -o edges
            gcc -std=c11 $checked "$root/bindings/c/tests/steer.c" $shared -lm -o steer
            gcc -std=c11 $checked "$root/bindings/c/examples/picture.c" $static -lgcc_s -o picture
            g++ -std=c++17 $checked "$root/bindings/c/examples/teach.cpp" $shared -o teach
        }
        export MOS_ADAPTER=cpu
        ./edges "$root/models/concepts/zorp"
        ./picture two.png
        # The same bytes as the program's.
        "$target/$built/mos" generate -p "a photo of a cat and a dog in the snow" --seed 2 \
            --size 64x64 --steps 2 --region "0,0,.5,1: a red cat" \
            --region ".5,0,1,1: a blue dog" -o mos.png
        cmp two.png mos.png
        ./teach "$root/models/concepts" 2 quick
        # What steers, latents, a second pass: the program's bytes too.
        local quick=(-p "a cat" --seed 1 --size 64x64 --steps 2)
        "$target/$built/mos" generate -p "a dog" --seed 7 --size 64x64 --steps 2 --save-latents noise.st -o other.png
        ./steer t2i_adapter two.png steered.png noise.st noise.png hires.png
        "$target/$built/mos" generate "${quick[@]}" -o mos-steered.png \
            --control t2i_adapter:image=two.png,make=outline,weight=0.7,end=0.9
        "$target/$built/mos" generate "${quick[@]}" --latents noise.st -o mos-noise.png
        "$target/$built/mos" generate "${quick[@]}" --hires 1.5 --hires-upscaler lanczos \
            --hires-strength 0.5 --guidance-rescale 0.5 --guidance-until 0.8 --cache 2 \
            -o mos-hires.png
        cmp steered.png mos-steered.png && cmp noise.png mos-noise.png && cmp hires.png mos-hires.png
    )
}
(c_package "$@")
