#!/usr/bin/env bash
# Installs the library for C and C++: header, shared and static library, pkg-config's file.
#     bindings/c/install.sh [PREFIX]        [default: /usr/local]
# `cargo cinstall` (cargo-c) does the same, with the versions in the libraries' names.
set -euo pipefail
prefix=${1:-/usr/local}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Tests have built it, with all else that they need.
[ -n "${MOS_BUILT:-}" ] || cargo build --release --locked -p mixofshow-c
built="${CARGO_TARGET_DIR:-target}/${MOS_BUILT:-release}"
mkdir -p "$prefix"/{include,lib/pkgconfig}
prefix=$(cd "$prefix" && pwd)
cp bindings/c/include/mixofshow.h "$prefix/include"
private="-lpthread -ldl -lm"
case $(uname -s) in
    Darwin) ending=dylib private="-framework Metal -framework QuartzCore -framework Foundation" ;;
    *) ending=so ;;
esac
cp "$built/libmixofshow_c.$ending" "$prefix/lib/libmixofshow.$ending"
cp "$built/libmixofshow_c.a" "$prefix/lib/libmixofshow.a"
cat >"$prefix/lib/pkgconfig/mixofshow.pc" <<END
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: mixofshow
Description: Teach Stable Diffusion concepts, fuse them, place each in its region: on any device.
Version: $(sed -n 's/^version = "\(.*\)"/\1/p' bindings/c/Cargo.toml | head -1)
Cflags: -I\${includedir}
Libs: -L\${libdir} -lmixofshow
Libs.private: $private
END
echo "$prefix/lib/pkgconfig/mixofshow.pc"
