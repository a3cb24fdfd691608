"""The page in a real browser: a ticket is typed, an answer comes, in both languages, and nothing leaves the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browser import browser_page
from running import running

from peftlab.evaluation.predictor import Predictor

# Names under which browsers of the Chromium family are installed.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TICKET = "why is my parcel late"
PIECES = "document.querySelectorAll('#pieces mark').length"
FORGE = "document.querySelector('#label').textContent = ''"
TAGGED = "🚚 my parcel courier is late"


def choose(model: str) -> str:
    """Return what switches the page to another model."""
    return (
        f"(() => {{ const m = document.querySelector('#model'); m.value = '{model}';"
        "m.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.slow
def test_a_typed_ticket_gets_label_confidence_and_words_and_the_model_can_be_switched(
    served_runs: dict[str, Path], offline: dict[str, Predictor], tmp_path: Path
) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("absent: chromium")
    folders = {name: served_runs[name] for name in ("queue", "urgency", "entities")}
    with running(folders, tmp_path, "--port", "0") as server, browser_page(browser, tmp_path / "profile") as page:
        page.send("Page.navigate", url=server.address)
        page.wait_for("document.querySelector('#model')?.options.length === 3")
        page.type_into("#text", TICKET)
        page.value("document.querySelector('#ask').click()")
        page.wait_for(f"{PIECES} === 5")
        for name in ("queue", "urgency"):
            row = offline[name].rows([TICKET])[0]
            shown = page.value("document.querySelector('#label').textContent")
            assert shown == f"{row['label']} · {100 * row['probabilities'][row['label']]:.1f} %"
            assert page.value("document.querySelectorAll('#chances li').length") == len(row["probabilities"])
            assert page.value("document.querySelector('#pieces').textContent") == TICKET
            if name == "queue":
                page.value(FORGE)
                page.value(choose("urgency"))
                page.wait_for(f"document.querySelector('#label').textContent && {PIECES} === 5")

        page.type_into("#text", TAGGED)
        page.value(choose("entities"))
        page.wait_for("document.querySelectorAll('#pieces mark.entity').length")
        found = offline["entities"].rows([TAGGED])[0]["entities"]
        shown = page.value("[...document.querySelectorAll('#pieces mark')].map(one => one.textContent)")
        assert shown == [one["text"] + one["type"] for one in found]
        assert page.value("document.querySelector('h3[data-for=label]').hidden")

        page.value(
            "(() => { const m = document.querySelector('#language'); m.value = 'zh';"
            "m.dispatchEvent(new Event('change')); })()"
        )
        assert page.value("document.querySelector('#ask').textContent") == "预测"
        assert page.value("document.documentElement.lang") == "zh"
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(22, 27, 34)"
        page.send("Page.navigate", url=f"{server.address}/docs")
        page.wait_for("document.body?.innerText.includes('POST /v1/predict')")

        assert page.complaints == []
        assert len(page.requests) >= 6
        assert [url for url in page.requests if not url.startswith((f"{server.address}/", "data:,"))] == []
