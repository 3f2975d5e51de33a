"""The page in a real browser: it renders, says nothing on its console, and never scrolls sideways."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from velollm_core.benchmark.recorded import judge_experiment
from velollm_core.report.files import write_report
from velollm_core.report.tell import tell_judgement, tell_measurement

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
]
SCHEMES = {"light": "1", "dark": "0"}
PROBE = """<!DOCTYPE html><meta charset="utf-8"><iframe id="f" style="border:0;width:{width}px;height:900px"></iframe>
<script>
const frame = document.getElementById("f");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("main *, header *")].filter(
    each => !each.closest(".scroll, svg") && each.getBoundingClientRect().right > root.clientWidth + 1);
  const small = [...page.querySelectorAll("svg text")].filter(
    each => each.getBoundingClientRect().height > 0 && each.getBoundingClientRect().height < 9);
  const found = {{
    width: root.scrollWidth, room: root.clientWidth, headings: page.querySelectorAll("h2").length,
    charts: [...page.querySelectorAll("svg[role=img]")].filter(each => each.getBoundingClientRect().height > 20).length,
    wide: wide.map(each => each.outerHTML.slice(0, 80)), small: small.map(each => each.textContent),
    ground: getComputedStyle(page.body).backgroundColor, text: getComputedStyle(page.body).color}};
  document.body.insertAdjacentHTML("beforeend", "<pre id=found></pre>");
  document.getElementById("found").textContent = JSON.stringify(found);
}};
frame.srcdoc = {page};
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page was not rendered")


HOSTILE = "<script>document.title='caught'</script>\"'&" + 200 * "W"


@pytest.fixture(params=["loads", "duel", "hostile", "hostile duel"])
def report(
    request: pytest.FixtureRequest, tmp_path: Path, write_loads: Callable[..., Path], write_duel: Callable[..., Path]
) -> Path:
    samples = tmp_path / "samples.jsonl"
    if request.param.endswith("duel"):
        names = ("before", "after") if request.param == "duel" else (HOSTILE, f"{HOSTILE}W")
        dossier = tell_judgement(judge_experiment(write_duel(samples, names=names)), samples)
    elif request.param == "loads":
        dossier = tell_measurement(write_loads(samples, {1: 20, 4: 120}, fail=2))
    else:
        dossier = tell_measurement(write_loads(samples, {1: 3, 2: 4}, model=HOSTILE, task=HOSTILE))
    page = tmp_path / "report.html"
    write_report(dossier, page)
    return page


def browse(folder: Path, page: Path, scheme: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The browser's output under a colour ``scheme``, its profile new."""
    assert CHROMIUM is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    wish = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    home = {**os.environ, "HOME": str(folder)}
    command = [CHROMIUM, *FLAGS, profile, wish, *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=home, check=True)


def measure(folder: Path, page: Path, width: int, scheme: str) -> dict[str, object]:
    """What the page looks like from inside a frame of ``width`` pixels; windows cannot be made that narrow."""
    probe = folder / f"probe-{width}-{scheme}.html"
    source = json.dumps(page.read_text(encoding="utf-8")).replace("</", "<\\/")
    probe.write_text(PROBE.format(width=width, page=source), encoding="utf-8")
    done = browse(folder, probe, scheme, "--window-size=1400,1000", "--dump-dom")
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return dict(json.loads(html.unescape(found.group(1))))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_the_screen(report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    found = measure(tmp_path, report, width, scheme)
    assert found["room"] == width
    assert found["width"] == width
    assert found["wide"] == []
    assert found["small"] == []
    assert int(str(found["charts"])) >= 5
    assert int(str(found["headings"])) >= 4


@pytest.mark.slow
def test_it_follows_the_colour_scheme(report: Path, tmp_path: Path) -> None:
    light, dark = (measure(tmp_path, report, 800, scheme) for scheme in ("light", "dark"))
    assert light["ground"] == "rgb(255, 255, 255)"
    assert dark["text"] != light["text"]
    assert dark["ground"] != light["ground"]


@pytest.mark.slow
def test_it_draws_in_silence(report: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    done = browse(tmp_path, report, "light", "--window-size=1280,1600", f"--screenshot={shot}")
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr
    assert "<title>caught</title>" not in browse(tmp_path, report, "light", "--dump-dom").stdout


def test_the_probe_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text("<!DOCTYPE html><body><main><p style='width:2000px'>wide</p></main>")
    found = measure(tmp_path, page, 375, "light")
    assert found["width"] != 375
    assert found["wide"]
