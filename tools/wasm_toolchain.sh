#!/usr/bin/env bash
# Makes a machine able to build wasm/, and prints what to evaluate:  eval "$(bash tools/wasm_toolchain.sh)"
#
# Where rustc already has the wasm32 standard library and wasm-pack is on PATH (rustup target add
# wasm32-unknown-unknown && cargo install wasm-pack), that is used and nothing is installed. A bare x86-64 Debian 12
# gets its toolchain from Debian, crates.io and npm: Debian's rustc has no wasm32 standard library, so that is built
# once from rust-web-src. Running it again takes a second. The log goes to stderr.
set -euo pipefail
home=${WASM_TOOLCHAIN:-$HOME/.cache/wasm-toolchain}
# wasm-bindgen is the crate's exact dependency in wasm/Cargo.toml; wasm-pack wants the same version of its program.
wasm_bindgen=0.2.126 wasm_pack=0.15.1 binaryen=132.0.0
exec 3>&1 1>&2

has_wasm32() {
  local libdir
  libdir=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) &&
    compgen -G "$libdir/libstd-*.rlib" >/dev/null
}
has_program() { # PROGRAM VERSION
  command -v "$1" >/dev/null && "$1" --version 2>/dev/null | grep -qF "$2"
}
say_versions() {
  echo "wasm toolchain: $(rustc --version), $(wasm-bindgen --version), $(wasm-pack --version), $(wasm-opt --version)"
}

install_program() { # CRATE VERSION PROGRAM
  has_program "$3" "$2" && return
  # Unoptimised, they are built in half the time, and do their work in a second. They share crates.
  CARGO_TARGET_DIR="$home/build" CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install "$1" --version "$2" --locked --force --debug --root "$home"
}
install_wasm_opt() {
  has_program wasm-opt "${binaryen%%.*}" && return
  npm install --loglevel=error --no-audit --no-fund --prefix "$home" "binaryen@$binaryen"
  ln -sf "$home/node_modules/.bin/wasm-opt" "$home/bin/wasm-opt"
}

if has_wasm32 && command -v wasm-pack >/dev/null; then
  echo "wasm toolchain: using the rustc and wasm-pack on PATH"
  mkdir -p "$home/bin" && PATH="$home/bin:$PATH"
  install_program wasm-bindgen-cli "$wasm_bindgen" wasm-bindgen
  rm -rf "$home/build"
  install_wasm_opt
  say_versions
  echo "export PATH='$home/bin':\"\$PATH\"" >&3
  exit
fi

if ! [[ -r /etc/debian_version && $(uname -m) == x86_64 ]]; then
  echo "wasm toolchain: here, run: rustup target add wasm32-unknown-unknown && cargo install wasm-pack@$wasm_pack"
  exit 1
fi

if ! [[ -d /usr/lib/rustlib/src && -x /usr/bin/wasm-ld-19 && -x /usr/bin/cargo && -x /usr/bin/cc ]]; then
  as_root=; [[ $(id -u) == 0 ]] || as_root=sudo
  $as_root apt-get update -qq
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    rustc-web cargo-web rust-web-src lld-19 gcc libc6-dev $(command -v npm >/dev/null || echo npm)
fi

host=x86_64-unknown-linux-gnu sysroot=$home/sysroot
libraries=$sysroot/lib/rustlib/wasm32-unknown-unknown/lib
if ! compgen -G "$libraries/libstd-*.rlib" >/dev/null; then
  work=$(mktemp -d)
  mkdir -p "$work/.cargo" "$work/src" && touch "$work/src/lib.rs"
  printf '[package]\nname = "sysroot"\nversion = "0.0.0"\nedition = "2021"\n' >"$work/Cargo.toml"
  cat >"$work/.cargo/config.toml" <<'TOML'
[build]
target = "wasm32-unknown-unknown"
[unstable]
build-std = ["std", "panic_abort"]
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/lib/rustlib/src/rust/library/vendor"
TOML
  (cd "$work" && env -u CARGO_TARGET_DIR RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS="-C target-feature=+simd128 -C embed-bitcode=yes" \
    /usr/bin/cargo build --release --offline)
  rm -rf "$sysroot" && mkdir -p "$libraries"
  cp "$work"/target/wasm32-unknown-unknown/release/deps/*.rlib "$libraries/"
  rm -f "$libraries"/libsysroot-*.rlib
  ln -s "/usr/lib/rustlib/$host" "$sysroot/lib/rustlib/$host"
  rm -rf "$work"
fi

# A rustc and a cargo that know this sysroot. Build scripts and macros link with cc, wasm32 with wasm-ld.
mkdir -p "$home/bin"
cat >"$home/bin/rustc" <<SH
#!/bin/sh
exec /usr/bin/rustc --sysroot "$sysroot" "\$@"
SH
cat >"$home/bin/cargo" <<SH
#!/bin/sh
exec env RUSTC="$home/bin/rustc" CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 /usr/bin/cargo "\$@"
SH
chmod +x "$home/bin/rustc" "$home/bin/cargo"
PATH="$home/bin:$PATH"
install_program wasm-bindgen-cli "$wasm_bindgen" wasm-bindgen
install_program wasm-pack "$wasm_pack" wasm-pack
rm -rf "$home/build"
install_wasm_opt
say_versions
echo "export PATH='$home/bin':\"\$PATH\"" >&3
