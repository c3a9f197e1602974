#!/usr/bin/env bash
# A GPU day on a bare machine: gpu_day.sh OUT [arguments of benchmarks/gpu_day.py]. Needs python3 with torch 2.10 or newer, and
# vdiff_kernels/_C.so, built anywhere with VDIFF_CUDA=1 (VDIFF_CUDA_ARCHS=90 makes a small one for an H100). Installs and fetches
# nothing; WHEELS=FOLDER puts the pure Python wheels of a folder (diffusers) on the path, for the group `blocks`.
set -euo pipefail
out=$(realpath -m "${1:?usage: gpu_day.sh OUT [arguments]}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"
export PYTHONUNBUFFERED=1
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # cuBLAS raises without it while torch fills unwritten memory
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$(mktemp -d)}
for wheel in ${WHEELS:+"$(realpath "$WHEELS")"/*.whl}; do export PYTHONPATH=$wheel${PYTHONPATH:+:$PYTHONPATH}; done
nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || true
exec "${PYTHON:-python3}" -m benchmarks.gpu_day --out "$out" "${@:2}"
