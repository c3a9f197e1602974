#!/usr/bin/env bash
# A GPU day on a bare machine: gpu_day.sh OUT [arguments of `vdiff verify`]. Needs python3 with torch 2.10 or newer. Takes the
# vdiff_kernels/_C.so that lies there, built anywhere with CUDA (VDIFF_CUDA=1 VDIFF_CUDA_ARCHS=90 makes a small one for an H100),
# or builds that one, with nvcc, g++, ninja and setuptools. Fetches nothing. A second run in the same folder goes on with the
# first. WHEELS=FOLDER puts the pure Python wheels of a folder (diffusers) on the path.
set -euo pipefail
out=$(realpath -m "${1:?usage: gpu_day.sh OUT [arguments]}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # cuBLAS raises without it while torch fills unwritten memory
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$(mktemp -d)}
for wheel in ${WHEELS:+"$(realpath "$WHEELS")"/*.whl}; do export PYTHONPATH=$wheel${PYTHONPATH:+:$PYTHONPATH}; done
holds_kernels='import sys, vdiff_kernels.library as l; sys.exit(l.load() is not None or b".nv_fatbin" not in l.LIBRARY_FILE.read_bytes())'
if ! "$python" -c "$holds_kernels"; then
    VDIFF_CUDA=1 VDIFF_CUDA_ARCHS=${VDIFF_CUDA_ARCHS:-90} "$python" setup.py --quiet build_ext --inplace
fi
exec "$python" -m vdiff_kernels.verify --resume --out "$out" "${@:2}"
