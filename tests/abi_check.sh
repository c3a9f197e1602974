#!/usr/bin/env bash
# One library file, built once with the CUDA kernels against a CPU torch, must serve every torch from 2.10 on.
#
#     tests/abi_check.sh [DIRECTORY]        default: ${TMPDIR:-/tmp}/vdiff-abi
#
# DIRECTORY/torch-VERSION are virtual environments. An absent one is made (several GB each); one that is there, or a link to
# one, is used as it is. Needs nvcc and no GPU. TORCH_INDEX: where to get the CPU torch that builds, if not pip's own index.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
directory=${1:-${TMPDIR:-/tmp}/vdiff-abi}
builder=2.13.0
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

# environment VERSION [PIP ARGUMENT...]: prints nothing; leaves DIRECTORY/torch-VERSION with that torch in it.
environment() {
  local path=$directory/torch-$1
  [ -x "$path/bin/python" ] || python3 -m venv "$path"
  local found
  found=$("$path/bin/python" -c 'import torch; print(torch.__version__.split("+")[0])' 2>/dev/null) || found=none
  if [ "$found" = none ]; then
    "$path/bin/python" -m pip install --disable-pip-version-check "torch==$1" "${@:2}"
  elif [ "$found" != "$1" ]; then
    echo "$path has torch $found, not $1" >&2
    exit 1
  fi
}

environment "$builder" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
environment 2.10.0
environment 2.14.1

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build_python=$directory/torch-$builder/bin/python
"$build_python" -c 'import ninja, setuptools.command.bdist_wheel' 2>/dev/null ||
  "$build_python" -m pip install --disable-pip-version-check -U setuptools ninja
VDIFF_CUDA=1 "$build_python" -m pip wheel --disable-pip-version-check --no-build-isolation --no-deps -w "$scratch" "$root"
wheel=$(echo "$scratch"/*.whl)
"$build_python" -m zipfile -e "$wheel" "$scratch/package"
library=$scratch/package/vdiff_kernels/_C.so

fail() {
  echo "$*" >&2
  exit 1
}
case $wheel in *-py3-none-*) ;; *) fail "the wheel is tied to a Python: $(basename "$wheel")" ;; esac
dynamic=$(readelf -d "$library")
grep -q 'NEEDED.*libtorch_cpu\.so' <<<"$dynamic" || fail "libtorch_cpu.so is not named as needed"
! grep -qE 'RUNPATH|RPATH' <<<"$dynamic" || fail "the library has an rpath"
! grep -qE 'NEEDED.*lib(python|cudart|torch_cuda|torch_python)' <<<"$dynamic" || fail "the library needs what it must not"
! nm -D --undefined-only "$library" | grep -qE ' (_?Py|_ZNK?(2at|3c10|5torch))' || fail "the library uses an unstable interface"

# Whoever has the oldest torch builds with its headers.
oldest=$("$directory/torch-2.10.0/bin/python" -W ignore -c 'import torch; print(torch.__path__[0])')
(cd "$root" && find csrc -name '*.cpp' -print0 | xargs -0 -n 4 -P 2 "${CXX:-g++}" -fsyntax-only -std=c++17 -fvisibility=hidden \
  -DVDIFF_WITH_CUDA -DTORCH_TARGET_VERSION=0x020a000000000000 -Icsrc -isystem "$oldest/include") ||
  fail "the sources do not compile with the headers of torch 2.10.0"

status=0
cd "$scratch" # away from the checkout: its own vdiff_kernels must not be found first
for version in "$builder" 2.10.0 2.14.1; do
  expect=any
  [ "$version" = 2.14.1 ] && expect=cuda # the stream function can only be looked for in a CUDA build
  PYTHONPATH=$scratch/package "$directory/torch-$version/bin/python" -W ignore "$root/tests/abi_probe.py" "$expect" \
    >>"$scratch/table" || { status=1; echo "torch $version: FAILED" >>"$scratch/table"; }
done

echo
echo "$(basename "$wheel"), $(stat -c %s "$library") bytes, sha256 $(sha256sum "$library" | cut -c1-16)"
cat "$scratch/table"
exit $status
