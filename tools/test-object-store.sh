#!/usr/bin/env bash
# Object stores by URL, with a real server of S3's protocol on this machine: a fusion's statistics by
# three jobs of which one is killed midway, an evaluation in parts, pictures; to the same bytes as
# without. And what goes wrong: no bucket, no credentials, wrong ones, no server. The server is
# s3s-fs (of crates.io) where it is on the path, else s3rver (of npm). Left out, with a note, where
# neither can be had.
#     tools/test-object-store.sh [PROFILE]        [default: release; dev is quicker to build]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
profile=${1:-release} target="${CARGO_TARGET_DIR:-$PWD/target}"
case $profile in dev) built=debug ;; *) built=$profile ;; esac
folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT

port=${MOS_TEST_PORT:-4578}
mkdir -p "$folder/store/bucket"
if command -v s3s-fs >/dev/null; then
    s3s-fs --host 127.0.0.1 --port "$port" --access-key S3RVER --secret-key S3RVER \
        "$folder/store" >"$folder/server.log" 2>&1 &
elif command -v npm >/dev/null &&
    npm install --silent --no-audit --no-fund --prefix "$folder/npm" s3rver@3 >/dev/null 2>&1; then
    "$folder/npm/node_modules/.bin/s3rver" -d "$folder/store" -a 127.0.0.1 -p "$port" \
        --configure-bucket bucket >"$folder/server.log" 2>&1 &
else
    say "Object stores are left out: neither s3s-fs nor s3rver can be had here"
    exit 0
fi
server=$!
for _ in $(seq 100); do
    # Any answer will do.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.2
done
kill -0 "$server" 2>/dev/null || { cat "$folder/server.log" >&2; give_up "the server does not start"; }
cargo build --profile "$profile" --locked --features object-store --bin mos
mos="$target/$built/mos" models=$PWD/models
export MOS_ADAPTER=cpu
at="AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1"
who="AWS_ACCESS_KEY_ID=S3RVER AWS_SECRET_ACCESS_KEY=S3RVER"
# shellcheck disable=SC2086
stored() { env $at $who "$mos" "$@"; }
cd "$folder"

say "Object stores: what goes wrong is told"
fails() { # environment; exit code; words; arguments
    local environment=$1 code=$2 words=$3 found=0
    shift 3
    # shellcheck disable=SC2086
    env $environment timeout 120 "$mos" "$@" >said 2>&1 || found=$?
    [ "$found" = "$code" ] && grep -q -- "$words" said ||
        { cat said >&2; give_up "expected exit $code and \"$words\", found exit $found"; }
}
quick=(generate -p "a cat" --seed 1 --size 64x64 --steps 1)
fails "$at $who" 1 "no bucket .nowhere" "${quick[@]}" -o s3://nowhere/a/
fails "$at" 1 "no credentials" "${quick[@]}" -o s3://bucket/a/
fails "$at AWS_ACCESS_KEY_ID=else AWS_SECRET_ACCESS_KEY=where" 1 "access is refused" \
    "${quick[@]}" -o s3://bucket/a/
fails "AWS_ENDPOINT_URL=http://127.0.0.1:9 AWS_ALLOW_HTTP=true $who" 1 "127.0.0.1:9" \
    "${quick[@]}" -o s3://bucket/a/
fails "AWS_ENDPOINT_URL=http://127.0.0.1:$port $who" 1 "AWS_ALLOW_HTTP" \
    "${quick[@]}" -o s3://bucket/a/
fails "$at $who" 2 "s3://BUCKET/PREFIX" "${quick[@]}" -o "s3://bucket/a?b/c/"

say "Object stores: pictures"
stored "${quick[@]}" --batch 2 -o "s3://bucket/pictures/cat-{seed}.png" >names
"$mos" "${quick[@]}" --batch 2 -o "cat-{seed}.png" >/dev/null
grep -qx "s3://bucket/pictures/cat-2.png" names || give_up "names: $(cat names)"
# Both servers keep what they are given in files.
kept() { find "$folder/store" -path "*$1*" -type f | grep -v '/\.' | sort; }
for seed in 1 2; do
    file=$(kept "cat-$seed.png" | while read -r file; do
        if cmp -s "$file" "cat-$seed.png"; then echo "$file"; fi
    done)
    [ -n "$file" ] || give_up "cat-$seed.png is not there, or another one"
done

# Three concepts of one update each: what they are does not matter here.
for concept in "zorp man" "luma woman" "mimi cat"; do
    read -r name class <<<"$concept"
    "$mos" train --quiet --pictures "$models/concepts/$name" --words "<${name}1> <${name}2>" --class-word "$class" \
        --size 64x64 --steps 1 --batch 1 --accumulate 1 --sheet-every 0 -o "$name.safetensors" \
        >/dev/null
done
printf 'a photo of {}\n{} in the snow\n' >prompts.txt
concepts=(-c zorp.safetensors -c luma.safetensors -c mimi.safetensors)
fusion=(fuse "${concepts[@]}" --size 64x64 --steps 4 --prompts prompts.txt --keep none
    --distillation 0 --held-out none)
say "Object stores: fusing by one command"
"$mos" "${fusion[@]}" --quiet -o one >/dev/null
say "Object stores: statistics by three jobs, of which one is killed"
job() { stored "${fusion[@]}" --quiet --statistics s3://bucket/sums --statistics-only --part "$1/3"; }
job 2 &
worker=$!
for _ in $(seq 600); do
    [ -n "$(kept sums/cross)" ] && break
    sleep 0.1
done
# The program under the shell and `env`, and no other.
pkill -9 -P "$worker" 2>/dev/null || true
kill -9 "$worker" 2>/dev/null || true
wait "$worker" 2>/dev/null || true
say "Object stores: job 2 was killed with $(kept /sums/ | grep -c safetensors) files there"
for part in 3 1 2; do job "$part"; done
stored "${fusion[@]}" --quiet --statistics s3://bucket/sums -o many >/dev/null
# All but the report, which tells how long it took.
for file in $(cd one && find . -type f -not -path './report/*' | sort); do
    cmp "one/$file" "many/$file"
done
# It asks for none of the concepts' files again: they lie there too.
stored fuse --to many --remove mimi --statistics s3://bucket/sums --quiet >/dev/null
grep -q '"zorp"' many/fusion.json && ! grep -q '"mimi"' many/fusion.json ||
    give_up "mimi was not taken out"

say "Object stores: an evaluation in parts"
printf '<TOK> in the snow\na photo of <TOK>\n<TOK> on the beach\n' >asked.txt
looked=(eval -c zorp.safetensors -c luma.safetensors --pictures "$models/concepts/zorp"
    --pictures "$models/concepts/luma" --class-word man --class-word woman --prompts asked.txt
    --count 1 --together 1 --size 64x64 --steps 2)
"$mos" "${looked[@]}" -o whole --quiet >/dev/null
# Into one folder, in turns: who ends last writes the results.
stored "${looked[@]}" --quiet --part 2/2 -o s3://bucket/eval >/dev/null
stored "${looked[@]}" --quiet --part 1/2 -o s3://bucket/eval >names
grep -qx "s3://bucket/eval/index.html" names || give_up "no results: $(cat names)"
stored eval merge s3://bucket/eval -o fetched --quiet >/dev/null
diff -r whole fetched
# Into folders of their own, which are put together there.
for part in 1 2; do
    stored "${looked[@]}" --quiet --part "$part/2" -o "s3://bucket/part-$part" >/dev/null
done
stored eval merge s3://bucket/part-2 s3://bucket/part-1 -o s3://bucket/all --quiet >/dev/null
stored eval merge s3://bucket/all -o again --quiet >/dev/null
diff -r whole again
say "Object stores: the same bytes"
