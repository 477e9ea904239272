"""What measurements on this machine depend on: hardware, versions, commit and load."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

INSTRUCTION_SETS = {
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_ne_convert", "avx10"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
}
"""Those that the speed of matrix products depends on, by Linux's names."""


def device_name(device: torch.device) -> str:
    """What computes, in words: the GPU's name, or how many of the CPU's threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def has_bf16(device: torch.device) -> bool:
    """Whether the device has products of bfloat16 of its own; others imitate them, which takes longer than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def machine_facts(device: torch.device) -> dict[str, Any]:
    """These facts at the time of the call, by name."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_model": _cpu_model(),
        "cpu_family_and_model": [_cpu_info("cpu family"), _cpu_info("model\t")],
        "cpu_instruction_sets": sorted(_cpu_flags() & INSTRUCTION_SETS),
        "cpu_cores_usable": len(psutil.Process().cpu_affinity() or []) or os.cpu_count(),
        "cpu_capability_in_torch": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1_minute": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allows_tf32": torch.backends.cudnn.allow_tf32 if device.type == "cuda" else None,
    }


def _commit() -> dict[str, Any]:
    """The commit of this checkout, and whether files differ from it; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "files_differ_from_commit": bool(git("status", "-s"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "files_differ_from_commit": None}


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_family() -> str:
    """Maker and family of the processor, such as "AMD 25"; empty where the system does not say."""
    maker, family = _cpu_info("vendor_id"), _cpu_info("cpu family")
    return f"{maker.removeprefix('Authentic').removeprefix('Genuine')} {family}".strip()


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


def _cpu_info(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
