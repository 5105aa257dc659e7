"""The page in a real browser: without a network, on a wide screen and on a phone."""

import pytest

from pipeline.report import main
from pipeline.status import FAILURE, Status, write_status
from tests.report.tree import make_sweep


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_the_page_needs_no_network_and_fits(tmp_path, browser, screenshots, width, mobile):
    make_sweep(tmp_path / "sweep", topk=(5, 10), temperature=(0.5, 1.0), sample_size=(1, 8), seeds=(0, 1))
    (tmp_path / "sweep" / "failed").mkdir()
    error = "disk full: /a/very/long/path" + "/x" * 200
    write_status(tmp_path / "sweep" / "failed", Status(FAILURE, error=error))
    assert main([str(tmp_path / "sweep")]) == 0
    browser.offline()
    browser.size(width, 900, mobile=mobile)
    browser.open((tmp_path / "sweep" / "report" / "report.html").as_uri())
    browser.wait_for("Runs in sweep", "Commands that made the runs")
    browser.wait_until(lambda: browser.value("[...document.images].every(i => i.complete)"))
    assert browser.value("document.images.length") == 7
    assert browser.value("[...document.images].every(i => i.naturalWidth > 0)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("window.innerWidth") == width  # a phone zooms out of a page that is too wide
    # tables scroll within themselves, and only they
    cut = "[...document.body.children].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.value(f"{cut}.length") == 0
    browser.screenshot(screenshots / f"report-{width}.png", whole_page=True)
