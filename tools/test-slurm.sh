#!/usr/bin/env bash
# A fusion as jobs of a real slurmctld and slurmd on this machine alone, one worker killed midway: the
# same bytes as by one command. Left out, with a note, where Slurm cannot be had.
#     tools/test-slurm.sh [PROFILE]        [default: release; dev is quicker to build]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
profile=${1:-release} target="${CARGO_TARGET_DIR:-$PWD/target}"
case $profile in dev) built=debug ;; *) built=$profile ;; esac
command -v slurmctld >/dev/null && command -v slurmd >/dev/null ||
    get_packages slurmctld slurmd slurm-client || {
    say "Slurm is left out: slurmctld and slurmd cannot be had here"
    exit 0
}
cargo build --profile "$profile" --locked --bin mos
export MOS="$target/$built/mos" MOS_ADAPTER=cpu
tools=$PWD/tools models=$PWD/models

folder=$(mktemp -d)
daemons=()
cleanup() {
    [ ${#daemons[@]} = 0 ] || kill "${daemons[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
host=$(hostname -s)
mkdir "$folder"/{state,spool}
cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# Nobody else is on this cluster.
AuthType=auth/none
CredType=cred/none
SlurmctldPort=27017
SlurmdPort=27018
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$folder/slurm.conf"
say "Slurm: a controller and a node"
slurmctld -D >/dev/null 2>&1 &
daemons+=($!)
slurmd -D >/dev/null 2>&1 &
daemons+=($!)
for _ in $(seq 60); do
    case $(sinfo --noheader --format %T 2>/dev/null) in idle*) break ;; esac
    sleep 1
done
case $(sinfo --noheader --format %T) in
    idle*) ;;
    *) cat "$folder"/*.log >&2; give_up "the node does not come up" ;;
esac

# Three concepts of one update each: what they are does not matter here.
cd "$folder"
for concept in "zorp man" "luma woman" "mimi cat"; do
    read -r name class <<<"$concept"
    "$MOS" train --quiet --pictures "$models/concepts/$name" --words "<$name>" --class-word "$class" \
        --size 64x64 --steps 1 --batch 1 --accumulate 1 --sheet-every 0 -o "$name.safetensors" \
        >/dev/null
done
printf 'a photo of {}\n{} in the snow\n' >prompts.txt
quick=(-c zorp.safetensors -c luma.safetensors -c mimi.safetensors --size 64x64 --steps 4
    --prompts prompts.txt --keep none --distillation 0)
say "Slurm: fusing by one command"
"$MOS" fuse --quiet "${quick[@]}" -o one >/dev/null
say "Slurm: fusing by three jobs and a last one"
last=$("$tools/slurm/fuse.sh" 3 "$folder/sums" many "${quick[@]}" --quiet)
# One of them dies in the midst of its work.
for _ in $(seq 600); do
    worker=$(pgrep -f -- "--statistics $folder/sums --statistics-only --part 2/3" | tail -1 || true)
    [ -z "$worker" ] || [ -z "$(ls sums/*.safetensors 2>/dev/null)" ] || break
    sleep 0.1
done
[ -n "${worker:-}" ] && kill -9 "$worker" && say "Slurm: worker 2 is killed"
for _ in $(seq 600); do
    state=$(squeue --noheader --jobs "$last" --format %T 2>/dev/null || true)
    [ -n "$state" ] || break
    sleep 1
done
[ -d many ] || { cat sums/*.log >&2; give_up "the jobs made no model"; }
# All but the report, which tells how long it took.
for file in $(cd one && find . -type f -not -path './report/*' | sort); do
    cmp "one/$file" "many/$file"
done
say "Slurm: the same bytes"
