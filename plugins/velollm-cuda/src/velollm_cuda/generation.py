"""What a model's `generation_config.json` says: when an answer ends, and how its authors sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from velollm_core.errors import ModelFileError
from velollm_cuda.params import SamplingParams

Json = Mapping[str, object]
SAMPLING = {"temperature": float, "top_p": float, "top_k": int, "min_p": float, "repetition_penalty": float}


@frozen
class GenerationConfig:
    """``eos_ids`` end an answer; ``sampling`` holds the `SamplingParams` fields that the model's authors chose."""

    eos_ids: tuple[int, ...] = ()
    sampling: Mapping[str, float] = {}

    @property
    def params(self) -> SamplingParams:
        """How the authors sample.

        Raises:
            VeloError: a value has no meaning.
        """
        return SamplingParams(**self.sampling)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> GenerationConfig:
        """Read ``folder``; ids that ``generation_config.json`` leaves out come from ``config.json``.

        Raises:
            ModelFileError: a file is no JSON object, or a value is of the wrong type.
        """
        path = folder / "generation_config.json"
        document = read_object(path)
        eos = document.get("eos_token_id")
        if eos is None:
            path = folder / "config.json"
            eos = read_object(path).get("eos_token_id")
        return cls(_ids(eos, path), _sampling(document, folder / "generation_config.json"))


def read_object(path: Path) -> Json:
    """The JSON object in ``path``; an empty one where there is no such file.

    Raises:
        ModelFileError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: holds no object")
    return value


def _ids(value: object, path: Path) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(each, bool) or not isinstance(each, int) for each in ids):
        raise ModelFileError(f"{path}: eos_token_id is {value!r}, not token ids")
    return tuple(dict.fromkeys(ids))


def _sampling(document: Json, path: Path) -> Mapping[str, float]:
    """Greedy where ``do_sample`` is denied; else what is given, at temperature 1 where sampling is asked for."""
    if document.get("do_sample") is False:
        return {"temperature": 0.0}
    found: dict[str, float] = {"temperature": 1.0} if document.get("do_sample") else {}
    for name, kind in SAMPLING.items():
        value = document.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelFileError(f"{path}: {name} is {value!r}, not a number")
        found[name] = kind(value)
    return found
