#!/usr/bin/env bash
# `mos serve` by clients that others wrote, from PyPI: webuiapi, openai, and a headless browser that
# draws two regions. Left out, with a note, where they cannot be had.
#     tools/test-server.sh [FOLDER FOR SCREENSHOTS]
# MOS names another program than target/release/mos.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

shots=${1:-}
need_rust
clients() {
    local python=python3 target="${CARGO_TARGET_DIR:-$PWD/target}" mos address
    # Not local: the trap sees them after the end of this function.
    mos=${MOS:-$target/release/mos}
    [ -x "$mos" ] || build
    folder=$(mktemp -d)
    server=
    # shellcheck disable=SC2064
    trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
    if ! { "$python" -m venv "$folder/venv" && PATH="$folder/venv/bin:$PATH" &&
        pip install --quiet webuiapi openai pillow; }; then
        say "Clients of the server are left out: venv, pip or packages of PyPI cannot be had here"
        return
    fi
    mkdir "$folder/models" "$folder/concepts"
    "$mos" serve --port 0 --adapter "${MOS_ADAPTER:-cpu}" --output "$folder/pictures" \
        --models "$folder/models" --concepts "$folder/concepts" --pictures models/concepts \
        >"$folder/address" &
    server=$!
    for _ in $(seq 300); do
        [ -s "$folder/address" ] && break
        sleep 0.1
    done
    address=$(head -1 "$folder/address")
    say "The server by webuiapi and openai"
    "$python" tools/server/clients.py "$address"
    if pip install --quiet playwright && browser=$(browser_of); then
        say "The page in a browser: $browser"
        "$python" tools/server/page.py "$address" "$browser" ${shots:+"$shots"} |
            tee "$folder/said"
        say "What was painted with the brush, made again on the command line"
        local kept
        kept=$folder/pictures/$(sed -n 's/^kept: //p' "$folder/said")
        MOS_ADAPTER=${MOS_ADAPTER:-cpu} "$mos" generate --quiet --like "$kept" \
            -o "$folder/pictures/again.png" >/dev/null
        cmp "$kept" "$folder/pictures/again.png"
    else
        say "The page is left out: no Chromium is here (Debian: apt-get install chromium)"
    fi
    kill -INT "$server"
    wait "$server"
    server=
}

# A browser that is here, or that playwright has.
browser_of() {
    command -v chromium || command -v chromium-browser || command -v google-chrome ||
        { playwright install chromium >/dev/null 2>&1 && echo playwright; }
}
(clients)
