"""How long a learner waits for the number on the page: `--only page`."""

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from accent.cores import available_cores

from aurea.tables import markdown_table
from bench.clips import BenchClip
from bench.contestants import Place, build_archive, service, start
from bench.processes import RivalFailed
from bench.results import CLIP_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGE: Final = "page"
"""What asks for this alone in place of contestants."""

SMALL: Final = "curl, POST /classify-us-accent"
WHOLE: Final = "curl, POST /v1/accent?timeline=true"
SHOWN: Final = "the page, from the choice of the file to its number"

_REPEATS: Final = 40
_WARM: Final = 5
_WAIT_MS: Final = 60_000
_CURL_TIMEOUT_S: Final = 60
_WATCH: Final = """() => {
  let last = null;
  document.getElementById("file").addEventListener(
    "change", () => (window.beganMs = performance.now()), { capture: true });
  new MutationObserver(() => {
    const figure = document.querySelector("#result:not([hidden]) .figure");
    if (!figure || figure === last) return;
    last = figure;
    // The second frame begins once the first one is on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      window.tell(performance.now() - window.beganMs);
    }));
  }).observe(document.getElementById("result"), { childList: true, attributes: true });
}"""
_EXPECT: Final = """(waitMs) => {
  window.tookMs = new Promise((done) => {
    window.tell = done;
    setTimeout(done, waitMs, null);
  });
}"""


def page_report(model: Path, clips: Sequence[BenchClip], folder: Path) -> str:
    """Start the service, open its page, and return a table of how long a clip of 5 s takes.

    `folder` is that of the clips. Raises `RivalFailed`, and `SystemExit` where there is no
    Chromium, no Playwright or no curl.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or shutil.which("curl") is None:
        raise SystemExit("There is no Chromium or no curl: apt-get install chromium curl")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SystemExit("playwright is not installed: make setup-dev") from error
    clip = min(clips, key=lambda each: abs(each.duration_s - CLIP_S))
    build_archive(model)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(model, model, model, folder, Path(scratch), available_cores())
        contestant = service(place)
        tree, _ = start(contestant, place, folder / clips[0].file)
        try:
            with sync_playwright() as playwright:
                # As root Chromium has no sandbox.
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                times_ms = measure(browser, contestant.url, folder / clip.file)
                browser.close()
        finally:
            tree.stop()
    return f"A clip of {clip.duration_s:.1f} s, {_REPEATS} times in turn\n\n{table(times_ms)}"


def measure(
    browser: "Browser", url: str, clip: Path, repeats: int = _REPEATS, warm: int = _WARM
) -> dict[str, list[float]]:
    """Milliseconds of each way to a score, in turn, `repeats` times after `warm` uncounted ones."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(_WAIT_MS)
    page.goto(f"{url}/")
    page.locator("main:not([hidden])").wait_for()
    page.evaluate(_WATCH)
    times_ms: dict[str, list[float]] = {SHOWN: [], WHOLE: [], SMALL: []}
    for _ in range(warm + repeats):
        page.evaluate(_EXPECT, _WAIT_MS)
        page.set_input_files("#file", clip)
        took_ms = page.evaluate("window.tookMs")
        if took_ms is None:
            raise RivalFailed(f"the page shows no score: {page.locator('#failure').inner_text()}")
        times_ms[SHOWN].append(float(took_ms))
        times_ms[WHOLE].append(_curl_ms(f"{url}/v1/accent?timeline=true", clip))
        times_ms[SMALL].append(_curl_ms(f"{url}/classify-us-accent", clip))
    page.close()
    return {way: each[warm:] for way, each in times_ms.items()}


def table(times_ms: Mapping[str, Sequence[float]]) -> str:
    """Median and 95th percentile of each way, in a table."""
    rows = [
        [way, f"{statistics.median(each):.0f}", f"{_percentile_95(each):.0f}"]
        for way, each in times_ms.items()
    ]
    return markdown_table(["way", "p50, ms", "p95, ms"], rows)


def _percentile_95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _curl_ms(url: str, clip: Path) -> float:
    """Raises `RivalFailed` where the answer is no score."""
    told = subprocess.run(
        ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{time_total}", "-F", f"file=@{clip}", url],
        capture_output=True,
        text=True,
        timeout=_CURL_TIMEOUT_S,
    )
    if told.returncode:
        raise RivalFailed(f"curl: {told.stderr.strip()}")
    return 1000 * float(told.stdout)
