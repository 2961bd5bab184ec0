# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034
# Sourced by setup, test and demo: where things are, which preset is built, how
# to build, and how steps are timed. Sets root and cache; use_environment sets
# python_env, preset and build_dir.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${FETTLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fettle}

fail() {
  echo "[${0##*/}] $*" >&2
  exit 1
}

# timed LABEL COMMAND...: runs the command in a subshell and says how long it
# took. Its status is the command's. Never call it as `timed ... ||`: bash would
# then go on after an error inside a function.
timed() {
  local label=$1 started=$EPOCHREALTIME status errexit=${-//[!e]/}
  shift
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  # As it was: a caller that goes on after a failure must be able to.
  if [ -n "$errexit" ]; then set -e; fi
  awk -v a="$started" -v b="$EPOCHREALTIME" -v label="$label" \
    'BEGIN { printf "%s: %.1f s\n", label, b - a }' >&2
  return "$status"
}

# configure_and_build PRESET [TARGET...]
configure_and_build() {
  local folder=$root/build/$1 options=() quiet=()
  options=(-DFETTLE_PYTHON="$python_env/bin/python")
  if [ -n "${FETTLE_WERROR:-}" ]; then
    options+=(-DFETTLE_WERROR="$FETTLE_WERROR")
  fi
  if [ "$1" = cuda ]; then options+=(-DFETTLE_CUDA_ARCHS="$(cuda_archs)"); fi
  if [ "$1" = hip ]; then options+=(-DFETTLE_HIP_ARCHS="$(hip_archs)"); fi
  # A folder that has tests keeps them: tools/setup doesn't build them.
  if [ -n "${FETTLE_TESTS:-}" ]; then
    options+=(-DFETTLE_TESTS="$FETTLE_TESTS")
  elif [ ! -e "$folder/CMakeCache.txt" ]; then
    options+=(-DFETTLE_TESTS=OFF)
  fi
  (cd "$root" && cmake --preset "$1" --log-level=WARNING "${options[@]}" >/dev/null)
  shift
  # Into a file, ninja would write a line for every step.
  if [ ! -t 2 ]; then quiet=(--quiet); fi
  ninja -C "$folder" ${quiet[@]+"${quiet[@]}"} "$@" >&2
}

# The compute capabilities that the CUDA plug-in is compiled for: FETTLE_CUDA_ARCHS,
# or those of this machine's cards. Where no card is seen (a login node, a
# container being built), PTX, which the driver compiles on first use.
cuda_archs() {
  local found
  if [ -n "${FETTLE_CUDA_ARCHS:-}" ]; then
    echo "$FETTLE_CUDA_ARCHS"
    return
  fi
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
    tr -d '. ' | grep -E '^[0-9]+$' | sort -un | paste -sd ';' -) || found=
  echo "${found:-75-virtual;80-virtual}"
}

# The same for AMD; empty: every target that the compiler and libtorch know.
hip_archs() {
  local found=
  if [ "${FETTLE_HIP_ARCHS:-all}" != all ]; then
    echo "$FETTLE_HIP_ARCHS"
    return
  fi
  if [ -z "${FETTLE_HIP_ARCHS:-}" ] && command -v rocm_agent_enumerator >/dev/null; then
    found=$(rocm_agent_enumerator 2>/dev/null | grep -E '^gfx[1-9]' | sort -u |
      paste -sd ';' -) || found=
  fi
  echo "$found"
}

# The first python3 of version 3.11 or later.
find_python() {
  local candidate
  for candidate in "${FETTLE_PYTHON3:-}" python3 /usr/bin/python3; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
        2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "python3: expected version 3.11 or later with venv, found none;" \
    "install one or name it in FETTLE_PYTHON3"
}

# The environment's folder is named after what it holds, so that checkouts with
# the same pins share it and a changed pin gets a fresh one.
python_env_folder() {
  local version key
  version=$("$1" -c 'import platform; print(platform.python_version())')
  key=$({ cat "$root/tools/requirements.lock"; echo "$version"; } | sha256sum)
  echo "$cache/env-${key:0:12}"
}

nvcc_major() {
  local nvcc
  nvcc=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin command -v nvcc) || return 0
  "$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p'
}

# The preset this machine can build, given the environment's folder.
choose_preset() {
  local major
  if [ -n "${FETTLE_PRESET:-}" ]; then
    echo "$FETTLE_PRESET"
    return
  fi
  major=$(nvcc_major)
  if [ "${major:-0}" -ge 13 ]; then
    echo cuda
  elif command -v hipcc >/dev/null &&
    compgen -G "$1/lib/python3*/site-packages/torch/lib/libtorch_hip.so" >/dev/null; then
    echo hip
  else
    echo cpu
  fi
}

# use_environment: what the programs that call tools/setup need after it.
use_environment() {
  python_env=$(python_env_folder "$(find_python)")
  preset=$(choose_preset "$python_env")
  build_dir=$root/build/$preset
  export PATH="$python_env/bin:$PATH"
}
