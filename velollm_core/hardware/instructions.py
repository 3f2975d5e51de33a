"""Instruction sets that matter to inference, under one name on every system."""

from __future__ import annotations

NAMES = {
    "sse3": "sse3", "pni": "sse3", "ssse3": "ssse3", "sse4_2": "sse4_2", "sse4.2": "sse4_2",
    "avx": "avx", "avx1.0": "avx", "f16c": "f16c", "fma": "fma", "avx2": "avx2",
    "avx_vnni": "avx_vnni", "avx_vnni_int8": "avx_vnni_int8",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512dq": "avx512dq", "avx512vl": "avx512vl",
    "avx512vbmi": "avx512vbmi", "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16",
    "neon": "neon", "asimd": "neon", "fphp": "fp16", "asimdhp": "fp16", "feat_fp16": "fp16",
    "asimddp": "dotprod", "feat_dotprod": "dotprod", "i8mm": "i8mm", "feat_i8mm": "i8mm",
    "bf16": "bf16", "feat_bf16": "bf16", "sve": "sve", "sve2": "sve2", "sme": "sme", "feat_sme": "sme",
    "sme2": "sme2", "feat_sme2": "sme2",
    "lsx": "lsx", "lasx": "lasx", "vxe": "vxe", "vxe2": "vxe2",
}  # fmt: skip
"""What the kernels of Linux and macOS call them, in lower case, to the name shown."""


def instruction_sets(flags: str) -> tuple[str, ...]:
    """The known names among ``flags``, sorted; RISC-V's vector extension is the ``v`` of its ISA string."""
    words = flags.lower().split()
    found = {NAMES[word] for word in words if word in NAMES}
    for word in words:
        if word.startswith(("rv64", "rv32")):
            letters, *extensions = word[4:].split("_")
            found |= {"rvv"} if "v" in letters else set()
            found |= {name for name in ("zvfh", "zfh") if name in extensions}
    return tuple(sorted(found))
