"""Ask NVML everything `detect` wants to know, and write down each answer or its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from velollm_core.hardware.nvidia import base_name
from velollm_core.isolation import Hung, bounded

SECONDS = 5.0
"""NVML's time. It hangs in the driver where that is wedged, so it runs in a thread that can be left behind."""

PLAIN = (
    "nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo", "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryBusWidth", "nvmlDeviceGetNumGpuCores", "nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetMemoryInfo",
)  # fmt: skip
"""Calls that take a device and nothing else."""

OF_INSTANCE = ("nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetAttributes", "nvmlDeviceGetMemoryInfo")
"""Calls that a MIG instance answers too."""

MOST_DEVICES = 256


def ask_nvml(seconds: float = SECONDS) -> dict[str, object]:
    """What NVML says, as JSON's own types: per device and call ``{"value": …}`` or ``{"error": …}``.

    The whole carries an ``error`` instead of devices where the library is missing or the driver does not answer.
    """
    try:
        return bounded(_ask, seconds)
    except Hung as error:
        return {"error": f"NVML: {error}"}
    except Exception as error:  # noqa: BLE001 - a driver library may fail in any way; detect goes on without it
        return {"error": f"NVML: {type(error).__name__}: {error}"}


def _ask() -> dict[str, object]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"error": f"NVML: {error}"}
    try:
        count = _answer(pynvml.nvmlDeviceGetCount)
        return {
            "driver": _answer(pynvml.nvmlSystemGetDriverVersion).get("value"),
            "cuda": _answer(pynvml.nvmlSystemGetCudaDriverVersion_v2).get("value"),
            "nvml": _answer(pynvml.nvmlSystemGetNVMLVersion).get("value"),
            "devices": [_device(pynvml, index) for index in range(min(count.get("value") or 0, MOST_DEVICES))],
        }
    finally:
        pynvml.nvmlShutdown()


def _device(pynvml: Any, index: int) -> dict[str, object]:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        return {"error": str(error)}
    answers = {name: _named(pynvml, name, handle) for name in PLAIN}
    answers["memory_v2"] = _memory_v2(pynvml, handle)
    answers["max_clock_mem"] = _answer(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM)
    answers["temperature"] = _answer(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    if "error" in answers["nvmlDeviceGetCurrentClocksEventReasons"]:
        answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = _named(
            pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle
        )
    most = answers["nvmlDeviceGetMaxMigDeviceCount"].get("value") or 0
    instances = [found for number in range(min(most, 64)) if (found := _instance(pynvml, handle, number))]
    return {**answers, "instances": instances}


def _instance(pynvml: Any, handle: object, number: int) -> dict[str, object] | None:
    try:
        instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
    except pynvml.NVMLError:
        return None  # the places of instances that could be, but are not, answer with an error
    answers: dict[str, object] = {name: _named(pynvml, name, instance) for name in OF_INSTANCE}
    return {**answers, "memory_v2": _memory_v2(pynvml, instance)}


def _memory_v2(pynvml: Any, handle: object) -> dict[str, Any]:
    return _answer(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)


def _named(pynvml: Any, name: str, handle: object) -> dict[str, Any]:
    call = getattr(pynvml, name, None)
    if call is None:
        return {"error": "unknown to this pynvml"}
    answer = _answer(call, handle)
    if name.endswith("RunningProcesses") and isinstance(answer.get("value"), list):
        for process in answer["value"]:
            process["name"] = base_name(_answer(pynvml.nvmlSystemGetProcessName, process["pid"]).get("value"))
    return answer


def _answer(call: Callable[..., object], *arguments: object) -> dict[str, Any]:
    """``call``'s value in plain types, or its error; what a driver can throw is not ours to choose."""
    try:
        return {"value": _plain(call(*arguments))}
    except Exception as error:  # noqa: BLE001 - besides NVMLError: AttributeError and TypeError across pynvml versions
        return {"error": str(error) or type(error).__name__, "code": getattr(error, "value", None)}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    names = [field[0] for field in getattr(type(value), "_fields_", ())] or list(vars(value))
    return {name: _plain(getattr(value, name)) for name in names}
