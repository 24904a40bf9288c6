"""A real browser, without a window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.support.guard import GUARD
from tests.support.servers import BROWSER, find_program

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """Chromium, driven by chromedriver; both end with the test run."""
    chromium, chromedriver = (find_program(name) for names in BROWSER.values() for name in names)
    if chromium is None or chromedriver is None:
        pytest.fail("there is no chromium, or no chromedriver; see `make test`", False)
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    # With the driver's path given, selenium looks for nothing and fetches nothing.
    service = ChromeService(chromedriver, popen_kw={"process_group": 0})
    driver = Chrome(options, service)
    GUARD.watch("group", service.process.pid)
    try:
        yield driver
    finally:
        driver.quit()
        GUARD.forget("group", service.process.pid)
