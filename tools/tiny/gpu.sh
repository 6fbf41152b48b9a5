#!/bin/bash
# Trains everything in one command, on a machine with one data-centre GPU and many cores: stages
# side by side, each in a process of its own.
#
#     tools/tiny/gpu.sh WORK MODEL SECONDS      goes on from the weights in WORK
#     (`python -m tools.tiny pack` writes such), else begins anew
set -u
work=$1 model=$2 seconds=$3
started=$(date +%s)
mkdir -p "$work"
rm -f "$work"/*.ended
python=${PYTHON:-python3}
tiny() { "$python" -u -m tools.tiny "$@" --work "$work" --out "$model"; }
at() { echo $((started + seconds * $1 / 100)); } # the time at so many hundredths of the way

# Rendering goes on while others train: it never has more than the cores they leave.
(nice -n 15 "$python" -u -m tools.tiny data --work "$work" --total $((seconds * 55 / 100 * 25)) --pictures 204800 2>&1 | sed 's/^/data    /') &
until [ -e "$work/data/validation.npz" ] && [ "$(find "$work/data" -name 'train*.npz' | wc -l)" -ge 8 ]; do
  sleep 0.3
  [ $(($(date +%s) - started)) -gt 120 ] && echo "no pictures after two minutes" && exit 1
done
echo "first pictures after $(($(date +%s) - started)) s"
(tiny vae --until "$(at 28)" 2>&1 | sed 's/^/vae     /'; touch "$work/vae.ended") &
(tiny towers --compile no --until "$(at 20)" 2>&1 | sed 's/^/towers  /'; touch "$work/towers.ended"
 tiny judge --until "$(at 28)" 2>&1 | sed 's/^/judge   /'; touch "$work/judge.ended"
 tiny identity --until "$(at 90)" 2>&1 | sed 's/^/identity/') &
tiny unet --until "$(at 80)" 2>&1 | sed 's/^/unet    /'
tiny adapter --compile no --until "$(at 98)" 2>&1 | sed 's/^/adapter /'
tiny export 2>&1 | sed 's/^/export  /'
