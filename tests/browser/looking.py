"""What a page looks like, as far as a program can tell."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome

WIDTHS = (1280, 390)

# Texts that stick out of the page or out of their box, and controls that lie on each other.
_FAULTS = """
const faults = [], width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) faults.push(`page is ${document.documentElement.scrollWidth} wide`);
const name = e => `${e.tagName.toLowerCase()} "${(e.innerText || e.value || '').trim().slice(0, 40)}"`;
const shown = [...document.querySelectorAll('body *')].filter(
  e => e.offsetWidth && !e.matches('.away, .away *, thead, thead *, head *') && e.checkVisibility());
for (const e of shown) {
  const box = e.getBoundingClientRect();
  if (box.left < -1 || box.right > width + 1) faults.push(`${name(e)} sticks out of the page`);
  const style = getComputedStyle(e);
  if (e.scrollWidth > e.clientWidth + 1 && style.display !== 'inline' && style.overflowX !== 'auto')
    faults.push(`${name(e)} sticks out of its box`);
}
const controls = shown.filter(e => e.matches('a, button, input, textarea, summary') && !e.closest('nav'));
for (let i = 0; i < controls.length; i++) for (const other of controls.slice(i + 1, i + 8)) {
  if (controls[i].contains(other) || other.contains(controls[i])) continue;
  const a = controls[i].getBoundingClientRect(), b = other.getBoundingClientRect();
  if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    faults.push(`${name(controls[i])} lies on ${name(other)}`);
}
return faults;
"""


def faults(browser: Chrome, width: int, picture: Path) -> list[str]:
    """Look at the page that the browser shows, at some width.

    Args:
        browser: The browser.
        width: Pixels.
        picture: Where a screenshot goes, for people.

    Returns:
        What is wrong.
    """
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    found: list[str] = browser.execute_script(_FAULTS)
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**screen, "height": min(height, 2000)})
    browser.save_screenshot(str(picture))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return found
