"""The probe that asks NVML, against a library made of recorded answers."""

from __future__ import annotations

import ctypes
import sys
import threading
import types

import pytest

from velollm_core.hardware import nvml as probe
from velollm_core.hardware.nvidia import parse_nvml


class NVMLError(Exception):
    """As pynvml raises them."""

    def __init__(self, text: str, value: int = 3) -> None:
        super().__init__(text)
        self.value = value


def structure(fields: dict[str, object]) -> object:
    """An object like pynvml's ctypes structures."""
    names = [(name, ctypes.c_ulonglong) for name, value in fields.items() if isinstance(value, int)]
    kind = type("Structure", (ctypes.Structure,), {"_fields_": names})
    made = kind(**{name: fields[name] for name, _ in names})
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return types.SimpleNamespace(**{**{name: getattr(made, name) for name, _ in names}, **texts}) if texts else made


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch):
    """Put a pynvml in place that answers as the devices given once did."""

    def install(found: dict[str, object]) -> types.ModuleType:
        module = types.ModuleType("pynvml")
        devices = found["devices"]

        def replay(name: str):
            def call(handle: int, *_: object) -> object:
                answer = devices[handle].get(name, {"error": "Not Supported"})
                if "error" in answer:
                    raise NVMLError(answer["error"])
                return made(answer["value"])

            return call

        def made(value: object) -> object:
            if isinstance(value, dict):
                return structure(value)
            if isinstance(value, list):
                return [made(each) for each in value]
            return value.encode() if isinstance(value, str) else value

        for name in (*probe.PLAIN, "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetAttributes"):
            setattr(module, name, replay(name))
        first, second = replay("nvmlDeviceGetMemoryInfo"), replay("memory_v2")
        module.NVMLError, module.nvmlMemory_v2 = NVMLError, 0x02000028
        module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 2, 0
        module.nvmlInit = module.nvmlShutdown = lambda: None
        module.nvmlDeviceGetCount = lambda: len(devices)
        module.nvmlDeviceGetHandleByIndex = lambda index: index
        module.nvmlSystemGetDriverVersion = lambda: found["driver"]
        module.nvmlSystemGetCudaDriverVersion_v2 = lambda: found["cuda"]
        module.nvmlSystemGetNVMLVersion = lambda: found["nvml"]
        module.nvmlSystemGetProcessName = lambda pid: b"/home/ann/bin/python" if pid == 453 else b""
        module.nvmlDeviceGetMemoryInfo = lambda handle, version=None: second(handle) if version else first(handle)
        module.nvmlDeviceGetMaxClockInfo = lambda handle, _: replay("max_clock_mem")(handle)
        module.nvmlDeviceGetTemperature = lambda handle, _: replay("temperature")(handle)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return install


@pytest.mark.parametrize("machine_name", ["h100", "h200x2"])
def test_what_is_asked_is_what_was_recorded(library, nvml, machine_name: str) -> None:
    library(nvml(machine_name))
    assert parse_nvml(probe.ask_nvml()) == parse_nvml(nvml(machine_name))


def test_processes_get_their_names(library, nvml) -> None:
    library(nvml("h100", "busy"))
    (gpu,) = parse_nvml(probe.ask_nvml()).gpus
    assert [(process.pid, process.name) for process in gpu.processes] == [(453, "python")]


def test_an_older_library_lacks_calls(library, nvml) -> None:
    module = library(nvml("h100"))
    del module.nvmlDeviceGetCurrentClocksEventReasons
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: 4
    (gpu,) = parse_nvml(probe.ask_nvml()).gpus
    assert gpu.clock_event_reasons == 4


def test_mig_instances_are_asked_too(library, nvml) -> None:
    answers = nvml("h100")
    answers["devices"][0]["nvmlDeviceGetMaxMigDeviceCount"] = {"value": 7}
    answers["devices"].append(
        {"nvmlDeviceGetName": {"value": "MIG 3g.40gb"}, "memory_v2": {"value": {"total": 42, "free": 41}}}
    )
    module = library(answers)
    module.nvmlDeviceGetCount = lambda: 1

    def instance(_handle: int, number: int) -> int:
        if number != 2:
            raise NVMLError("Not Found", 6)
        return 1

    module.nvmlDeviceGetMigDeviceHandleByIndex = instance
    gpus = parse_nvml(probe.ask_nvml()).gpus
    assert [(gpu.name, gpu.memory_total, gpu.parent) for gpu in gpus[1:]] == [("MIG 3g.40gb", 42, 0)]


def test_a_gpu_that_is_lost(library, nvml) -> None:
    module = library(nvml("h100"))

    def lost(_index: int) -> int:
        raise NVMLError("GPU is lost", 15)

    module.nvmlDeviceGetHandleByIndex = lost
    assert parse_nvml(probe.ask_nvml()).notes == ("NVIDIA GPU 0: GPU is lost",)


def test_no_driver(library, nvml) -> None:
    module = library(nvml("h100"))

    def fails() -> None:
        raise NVMLError("Driver/library version mismatch", 18)

    module.nvmlInit = fails
    assert probe.ask_nvml() == {"error": "NVML: Driver/library version mismatch"}


def test_a_wedged_driver_is_left_behind(library, nvml) -> None:
    module = library(nvml("h100"))
    release = threading.Event()
    module.nvmlInit = release.wait
    assert probe.ask_nvml(0.1) == {"error": "NVML: no answer within 0.1 s"}
    release.set()


def test_no_library_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "ModuleNotFoundError" in str(probe.ask_nvml()["error"])


def test_the_real_library_answers_or_says_why() -> None:
    answers = probe.ask_nvml()
    assert "error" in answers or isinstance(answers["devices"], list)
