#!/usr/bin/env bash
# Everything that is to be seen of a graphics card, in one go: what it is, its self-tests, kernels,
# networks, pictures, a step of training, fusion, the demo, and how fast all of that is, beside
# PyTorch where that is installed. Some 12 minutes at most once the program is built. What fails
# doesn't stop the rest. All of it ends up in one folder and in one archive, to be sent.
#     tools/card.sh [--small] [--adapter ADAPTER] [--python PYTHON] [--minutes COUNT] [FOLDER]
# --small takes small sizes and few tests, in the profile for development: to try the script on a
# software driver. With more minutes each part may take longer, too. FOLDER is out/card unless
# given.
set -euo pipefail
here=$PWD
small='' adapter=${MOS_ADAPTER:-} python=${PYTHON:-python3} minutes=12 folder=''
usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"; exit "$1"; }
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=1 ;;
        --adapter | --python | --minutes)
            [ $# -gt 1 ] || { printf 'error: %s wants a value\n' "$1" >&2; exit 2; }
            case $1 in --adapter) adapter=$2 ;; --python) python=$2 ;; *) minutes=$2 ;; esac
            shift ;;
        -h | --help) usage 0 ;;
        -*) printf 'error: unknown option %s\n' "$1" >&2; usage 2 >&2 ;;
        *) [ -z "$folder" ] || { printf 'error: one folder, not %s too\n' "$1" >&2; exit 2; }
            folder=$1 ;;
    esac
    shift
done
case $minutes in
    '' | *[!0-9]*) printf 'error: --minutes %s: expected a whole number\n' "$minutes" >&2; exit 2 ;;
esac
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
folder=${folder:-$PWD/out/card}
case $folder in /*) ;; *) folder=$here/$folder ;; esac
# What is in it from before would be taken for this card's.
if [ -d "$folder" ] && [ -n "$(ls -A "$folder")" ]; then
    [ -f "$folder/card.json" ] || [ -f "$folder/parts" ] ||
        give_up "$folder is not empty, and holds no results of this script"
    rm -rf "$folder"
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -n "$adapter" ] && export MOS_ADAPTER=$adapter
# Compiled kernels of earlier runs would hide what the first start takes.
export MOS_CACHE=$folder/cache

tests=(kernels backward models pictures regional tuning)
if [ -n "$small" ]; then
    need_rust
    profile='' mos=${CARGO_TARGET_DIR:-target}/debug/mos
    say "Building, in the profile for development"
    cargo build --locked --bin mos
    tests=(kernels backward)
else
    profile=--release
    build
    # Built before the clock runs; each is run as a part.
    cargo test --release --locked --no-run $(printf -- '--test %s ' "${tests[@]}")
fi
# Where programs are started by a loader of their own (a newer driver beside the system's).
runner=${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER:-}

# Runs "$2 ..." for at most $1 seconds.
within() {
    if command -v timeout >/dev/null; then
        timeout -k 5 "$@"
    elif command -v gtimeout >/dev/null; then
        gtimeout -k 5 "$@"
    else
        perl -e 'alarm shift; exec @ARGV or exit 127' "$@"
    fi
}

# A text as JSON has it.
quoted() {
    local plain
    # Colours and the like have no place in it; lines stay.
    plain=$(printf '%s' "$1" | tr -d '\000-\010\013-\037' | tr '\t' ' ' |
        sed 's/\\/\\\\/g; s/"/\\"/g' | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')
    printf '"%s"' "$plain"
}

began=$SECONDS
failed=()
: >"$folder/parts"
# part NAME SECONDS COMMAND...: what it prints goes to NAME.txt (NAME.json where its name ends in
# .json), what it complains of to NAME.log.
part() {
    local name=$1 limit=$2 started=$SECONDS code=0 left out=$1.txt
    shift 2
    left=$((60 * minutes - SECONDS + began))
    case $name in *.json) out=$name ;; esac
    if [ "$left" -lt 5 ]; then
        code=skipped
        printf 'no time was left\n' >"$folder/$name.log"
    else
        say "${name%.json}"
        limit=$((limit * minutes / 12 + 1))
        [ "$limit" -lt "$left" ] || limit=$left
        within "$limit" "$@" >"$folder/$out" 2>"$folder/$name.log" </dev/null || code=$?
    fi
    local last
    last=$(grep -v '^ *$' "$folder/$name.log" | tail -n 1) || true
    case $code in
        0) ;;
        skipped) failed+=("$name: no time was left") ;;
        124 | 137 | 142) failed+=("$name: took more than $limit seconds") ;;
        *) failed+=("$name: ended with $code: $last") ;;
    esac
    printf '%s\t%s\t%s\n' "$name" "$code" $((SECONDS - started)) >>"$folder/parts"
    [ -s "$folder/$name.log" ] || rm -f "$folder/$name.log"
}
# The program, as a part's command.
program() { echo ${runner:+$runner} "$mos"; }
run=$(program)
# test_of NAME SECONDS [SCHEDULE [FILTER]]
test_of() {
    part "test-$1${3:+-$3}" "$2" env ${3:+MOS_TEST_SCHEDULE=$3} MOS_TEST_DEVICE=adapter \
        cargo test $profile --locked --package mixofshow --test "$1" ${4:-}
}

# --- what it is
versions() {
    $run --version
    git rev-parse HEAD 2>/dev/null || echo "no commit is known"
    git status --short 2>/dev/null | head -n 20
    rustc --version
    uname -a
    if command -v nvidia-smi >/dev/null; then nvidia-smi; fi
    if command -v vulkaninfo >/dev/null; then vulkaninfo --summary; fi
    "$python" - 2>/dev/null <<'END' || echo "no PyTorch"
import diffusers, torch
print("torch", torch.__version__, "diffusers", diffusers.__version__)
END
}
versions >"$folder/versions.txt" 2>&1 || true
part devices.json 60 $run devices --json
part devices 60 $run devices

# --- correct
if [ -n "$small" ]; then
    test_of kernels 120 matrices attention_to_ever_greater_scores
    test_of backward 120 matrices linear_layers
else
    for schedule in staged sizes matrices varying; do test_of kernels 60 $schedule; done
    for schedule in staged matrices; do test_of backward 60 $schedule; done
    test_of models 60 matrices
    for test in models pictures regional tuning; do test_of $test 90; done
fi

# --- fast
if [ -n "$small" ]; then
    common='--preset tiny --size 64 --repeat 1' sizes='2'
else
    common='--preset sd15 --size 512' sizes='1 2 8'
    part bench-kernels.json 60 $run bench kernels --json
    part bench-kernels-without-matrices.json 60 $run --matrices off bench kernels --json
fi
for batch in $sizes; do
    part bench-unet-$batch.json 60 $run bench unet $common --batch $batch --json
done
part bench-unet-2-without-matrices.json 60 $run --matrices off bench unet $common --batch 2 --json
part bench-unet-2-f32-activations.json 60 $run --activations f32 bench unet $common --batch 2 --json
part bench-unet-backward.json 60 $run bench unet $common --backward --json
# What the figures of a card allow, to lay beside: nothing is computed for it.
part model-unet-2.json 20 $run bench unet $common --batch 2 --model-of h200 --json
part model-unet-backward.json 20 $run bench unet $common --backward --model-of h200 --json
part model-vae.json 20 $run bench vae $common --model-of h200 --json
# Each kernel of a pass by the card's own timestamps.
part profile-unet-2 60 $run bench unet $common --batch 2 --profile "$folder/profile-unet-2"
part bench-vae.json 60 $run bench vae $common --json
part bench-text.json 60 $run bench text $common --json
part bench-step.json 60 $run bench step $common --json
part bench-step-f16.json 60 $run bench step $common --f16 --json
if [ -n "$small" ]; then
    part bench-regions.json 120 $run bench regions $common --json
else
    part bench-regions.json 60 $run bench regions --preset sd15 --size 512 --json
fi

# --- the start, with nothing compiled before and again; pictures; everything together
mkdir -p "$folder/pictures"
if [ -n "$small" ]; then wide=64 steps=2; else wide=128 steps=25 updates=320; fi
picture() {
    local name=$1
    shift
    part "$name" 120 $run --verbose "$@" generate -p 'a red cat' --seed 1 --size ${wide}x$wide \
        --steps $steps \
        -o "$folder/pictures/$name.png"
}
rm -rf "$MOS_CACHE"
picture first-start
picture second-start
picture f32-activations --activations f32
if [ -s "$folder/pictures/second-start.png" ]; then
    cmp -s "$folder/pictures/first-start.png" "$folder/pictures/second-start.png" ||
        failed+=("second-start: not the bytes of the first")
fi
if [ -n "$small" ]; then
    # The demo is for cards: two concepts of a few updates, and a fusion of few predictions.
    for concept in luma mimi; do
        part train-$concept 240 $run train models/concepts/settings.toml --size 64x64 --steps 2 \
            --pictures models/concepts/$concept --words "<${concept}1> <${concept}2>" \
            --class-word "$(sed -n 's/.*"class_word": "\(.*\)".*/\1/p' \
                models/concepts/$concept/concept.json)" \
            -o "$folder/demo/$concept.safetensors"
    done
    few='--size 64x64 --steps 2 --distillation 1 --scenes 0'
else
    part demo 240 $run demo --steps $updates --seeds 1 --json -o "$folder/demo"
    few=''
fi
fused() {
    set --
    for concept in "$folder"/demo/*.safetensors; do
        [ ! -f "$concept" ] || set -- "$@" -c "$concept"
    done
    [ $# -gt 0 ] || { echo "no concepts were left to fuse" >&2; return 1; }
    $run fuse "$@" $few -o "$folder/fused"
}
export -f fused
export run folder few
part fuse 360 bash -c fused

# --- beside PyTorch
has_card='import sys, diffusers, torch; sys.exit(not torch.cuda.is_available())'
if "$python" -c "$has_card" 2>/dev/null; then
    model=$folder/sd15
    part pytorch 240 "$python" tools/reference/card_cost.py "$model"
    for batch in 1 4; do
        part generate-$batch 60 $run --verbose generate -m "$model" -p 'a photo of a cat' \
            --size 512x512 --steps 20 --sampler dpmpp-2m --guidance 7.5 --batch $batch --seed 1 \
            -o "$folder/pictures/sd15-$batch.png"
    done
    rm -rf "$model"
else
    echo "$python has no PyTorch that finds a card: nothing is compared with it" \
        >"$folder/pytorch.txt"
    printf 'pytorch\tabsent\t0\n' >>"$folder/parts"
fi

# --- one file
{
    printf '{\n "script": 1,\n "small": %s,\n "seconds": %s,\n' \
        "$([ -n "$small" ] && echo true || echo false)" $((SECONDS - began))
    printf ' "versions": %s,\n "devices": ' "$(quoted "$(cat "$folder/versions.txt")")"
    if [ -s "$folder/devices.json" ]; then cat "$folder/devices.json"; else echo null; fi
    printf ', "parts": ['
    comma=''
    while IFS=$'\t' read -r name code seconds; do
        printf '%s\n  {"name": %s, "ended": %s, "seconds": %s' \
            "$comma" "$(quoted "${name%.json}")" "$(quoted "$code")" "$seconds"
        case $name in
            devices*) ;;
            *.json) if [ "$code" = 0 ]; then printf ', "found": ' && cat "$folder/$name"; fi ;;
            *)
                said=$(tail -n 40 "$folder/$name.txt" 2>/dev/null) || true
                if [ -n "$said" ]; then printf ', "said": %s' "$(quoted "$said")"; fi ;;
        esac
        log=$(tail -n 20 "$folder/$name.log" 2>/dev/null) || true
        if [ -n "$log" ]; then printf ', "log": %s' "$(quoted "$log")"; fi
        printf '}'
        comma=,
    done <"$folder/parts"
    printf '\n ]\n}\n'
} >"$folder/card.json.part"
mv "$folder/card.json.part" "$folder/card.json"
rm -rf "$MOS_CACHE" "$folder/parts"
archive=$folder.tar.gz
tar -czf "$archive.part" -C "$(dirname "$folder")" "$(basename "$folder")"
mv "$archive.part" "$archive"

say "Done in $((SECONDS - began)) seconds: send $archive (or its card.json alone)"
if [ ${#failed[@]} -gt 0 ]; then
    printf '%s\n' "${#failed[@]} parts failed:" "${failed[@]/#/  }" >&2
    exit 1
fi
