#!/usr/bin/env bash
# Fuses concepts on a cluster that Slurm runs, over a file system that its machines share: an array
# of jobs samples, each a share of the concepts, and one job after them solves. Whatever a job that
# died left undone, the last one does, to the same bytes.
#     tools/slurm/fuse.sh PARTS STATISTICS OUTPUT OPTIONS-OF-MOS-FUSE...
#     tools/slurm/fuse.sh 14 sums all -m sd15 --list concepts.toml
# What jobs need (partition, gres, time) stands in SBATCH_... variables, as sbatch reads them. MOS is
# the program, if it is not `mos`. Prints the number of the last job.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
parts=$1 statistics=$2 output=$3
shift 3
mkdir -p "$statistics"
command=$(printf '%q ' "${MOS:-mos}" fuse "$@" --statistics "$statistics")
array=$(sbatch --parsable --job-name mos-statistics --array "1-$parts" --requeue \
    --output "$statistics/part-%a.log" \
    --wrap "$command --statistics-only --part \$SLURM_ARRAY_TASK_ID/$parts")
# After any end of them: a part that failed is a part of this one's work.
sbatch --parsable --job-name mos-fuse --dependency "afterany:${array%%;*}" --requeue \
    --output "$statistics/fuse.log" --wrap "$command $(printf -- '-o %q' "$output")"
