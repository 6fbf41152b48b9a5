#!/usr/bin/env bash
# From a fresh checkout to pictures: installs what is missing, builds, and makes a small set with
# the model that ships.
#     tools/demo.sh [FOLDER]      FOLDER is out/demo unless given
set -euo pipefail
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

folder=${1:-$PWD/out/demo}
case $folder in /*) ;; *) folder=$here/$folder ;; esac

build
say "Making pictures"
"$mos" demo --output "$folder"
