"""The speed that bytes and bandwidth allow: prefill and decode as intervals, None where a bandwidth is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.models.devices import HOST, Device
from velollm_core.models.efficiency import BUS, MIXTURE, QUANTIZED_CACHE, efficiency
from velollm_core.models.prediction import Prediction
from velollm_core.models.span import Span, total
from velollm_core.models.tensor_types import TYPES_BY_NAME
from velollm_core.models.traffic import Traffic, traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from velollm_core.figures import Rate
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.placement import Placement
    from velollm_core.models.spec import ModelSpec

# A prompt to speak of where no depth is asked for.
SHORT_PROMPT = 512


def predict(
    spec: ModelSpec, load: LoadSettings, placement: Placement, devices: Sequence[Device], depth: int
) -> Prediction:
    """One sequence with ``depth`` tokens in its cache: decode there, and prefill of a prompt that long.

    With ``depth`` 0 prefill is that of a prompt of 512 tokens.
    """
    return Prediction(
        prefill=prefill_rate(spec, load, placement, devices, depth or SHORT_PROMPT),
        decode=decode_rate(spec, load, placement, devices, depth),
        depth=depth,
    )


def decode_rate(
    spec: ModelSpec,
    load: LoadSettings,
    placement: Placement,
    devices: Sequence[Device],
    depth: int,
    sequences: int = 1,
) -> Rate | None:
    """Tokens a second that each of ``sequences`` decoded together gets; times ``sequences`` is the system's."""
    by_name = {device.name: device for device in devices}
    moved = [each for each in traffic(spec, load, placement, depth=depth, sequences=sequences) if each.bytes]
    reads = [_reading(each, by_name) for each in moved]
    if any(read is None for read in reads):
        return None
    times = [_token(each, read, by_name) for each, read in zip(moved, reads, strict=True) if read]
    return (1.0 / (_step(moved, by_name) + total(times))).rate()


def prefill_rate(
    spec: ModelSpec, load: LoadSettings, placement: Placement, devices: Sequence[Device], prompt: int
) -> Rate | None:
    """Tokens a second over a prompt of ``prompt`` tokens, taken ``load.ubatch`` at a time."""
    by_name = {device.name: device for device in devices}
    tokens = max(1, min(load.ubatch, load.batch, prompt))
    moved = traffic(spec, load, placement, depth=prompt / 2, tokens=tokens)
    slowed = _slowed(load)
    times = [_chunk(each, by_name, placement, slowed) for each in moved if each.bytes]
    if any(time is None for time in times):
        return None
    return (tokens / (_step(moved, by_name) + total(time for time in times if time))).rate()


def turn_seconds(prefill: Rate | None, decode: Rate | None, prompt: int, answer: int) -> Span | None:
    """Seconds from a prompt of ``prompt`` tokens to the end of an answer of ``answer``; None where one is unknown."""
    if prefill is None or decode is None:
        return None
    return prompt / Span.of(prefill) + answer / Span.of(decode)


def basis(placement: Placement, devices: Sequence[Device]) -> tuple[str, ...]:
    """One line for each device in use: its bandwidth and the part of it that is expected, or what is unknown."""
    by_name = {device.name: device for device in devices}
    used = dict.fromkeys((*placement.layers, *placement.experts, placement.output))
    return tuple(_basis(by_name[name]) for name in used if name in by_name)


def _basis(device: Device) -> str:
    if device.bandwidth is None:
        return f"{device.name}: memory bandwidth unknown, so no speed is predicted"
    known = f"{device.name}: {device.bandwidth.value / 1e9:.0f} GB/s {device.bandwidth.basis}"
    peak = (
        f"{device.flops.value / 1e12:.3g} TFLOP/s {device.flops.basis}" if device.flops else "arithmetic peak unknown"
    )
    return f"{known}, {peak}; {efficiency(device).why}"


def _reading(moved: Traffic, devices: Mapping[str, Device]) -> Span | None:
    device = devices.get(moved.device)
    if device is None or device.bandwidth is None:
        return None
    speed = Span.of(device.bandwidth) * efficiency(device).bandwidth
    return (moved.bytes - moved.experts) / speed + moved.experts / (speed * MIXTURE)


def _computing(moved: Traffic, devices: Mapping[str, Device]) -> Span | None:
    device = devices.get(moved.device)
    if device is None or device.flops is None:
        return None
    return moved.flops / (Span.of(device.flops) * efficiency(device).compute)


def _token(moved: Traffic, read: Span, devices: Mapping[str, Device]) -> Span:
    """A step of decode on one device: a GPU reads while it computes, a core does one after the other."""
    work = _computing(moved, devices) or Span.exact(0.0)
    return read + work if devices[moved.device].gpu is None else read.at_least(work)


def _slowed(load: LoadSettings) -> Span:
    """What part of its arithmetic a processor keeps with this cache."""
    quantized = any(TYPES_BY_NAME[kind].quantized for kind in (load.type_k, load.type_v))
    return QUANTIZED_CACHE if quantized else Span.exact(1.0)


def _chunk(moved: Traffic, devices: Mapping[str, Device], placement: Placement, slowed: Span) -> Span | None:
    """A chunk of prefill on one device: reading and arithmetic overlap, the slower one counts.

    Host weights may be streamed to a GPU instead, where one takes part.
    """
    read, work = _reading(moved, devices), _computing(moved, devices)
    if work is not None and moved.cache and devices[moved.device].gpu is None:
        work = Span(work.value / slowed.value, work.low / slowed.high, work.high / slowed.low)
    if read is None or work is None:
        return None
    here = read.at_least(work)
    if moved.device == HOST and len(placement.devices) > 1:
        return here.at_most((moved.weights + moved.experts) / BUS)
    return here


def _step(moved: Sequence[Traffic], devices: Mapping[str, Device]) -> Span:
    """The time of a step outside all bytes: the host's, and each GPU's in use."""
    return total(efficiency(devices[each.device]).step for each in moved if each.bytes and each.device in devices)
