#!/usr/bin/env bash
# Builds run.cc against the TVM runtime of a Python environment: build.sh [PYTHON] [OUT] [COMPILER]
# For another machine, PYTHON is that of its environment: build.sh .arm64/python run aarch64-linux-gnu-g++
set -euo pipefail
cd "$(dirname "$0")"
python=${1:-python3}
out=${2:-run}
compiler=${3:-g++}
find='import importlib.util as u; print(*(u.find_spec(n).submodule_search_locations[0] for n in ("tvm_ffi", "tvm")), sep="\n")'
{ read -r ffi; read -r tvm; } < <("$python" -c "$find")
"$compiler" -std=c++17 -O2 -I"$ffi/include" -I"$ffi/3rdparty/dlpack/include" -I"$ffi/include/3rdparty" run.cc -o "$out" \
    -L"$ffi/lib" -L"$tvm/lib" -Wl,--no-as-needed -ltvm_ffi -ltvm_runtime -Wl,-rpath,"$ffi/lib:$tvm/lib"
