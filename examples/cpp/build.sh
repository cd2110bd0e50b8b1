#!/usr/bin/env bash
# Builds run.cc against the TVM runtime of a Python environment: build.sh [PYTHON] [OUT]
set -euo pipefail
cd "$(dirname "$0")"
python=${1:-python3}
out=${2:-run}
ffi=$("$python" -c 'import tvm_ffi; print(tvm_ffi.__path__[0])')
tvm=$("$python" -c 'import importlib.util as u; print(u.find_spec("tvm").submodule_search_locations[0])')
g++ -std=c++17 -O2 -I"$ffi/include" -I"$ffi/3rdparty/dlpack/include" -I"$ffi/include/3rdparty" run.cc -o "$out" \
    -L"$ffi/lib" -L"$tvm/lib" -Wl,--no-as-needed -ltvm_ffi -ltvm_runtime -Wl,-rpath,"$ffi/lib:$tvm/lib"
