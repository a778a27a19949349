"""Our workflows in the page's template browser."""

import json

import pytest

from devhost.host import PACK_NAME, ROOT

pytest.importorskip("playwright.sync_api", reason="pip install playwright")

WORDS = json.loads((ROOT / "locales" / "en" / "main.json").read_text(encoding="utf-8"))["templateWorkflows"]
TITLES = WORDS["template"]["wan22-native"]
CARD = "[data-testid^=template-workflow-]"
# names and titles of the cards, when they are all ours; the page makes 24 at first, and others when one scrolls
SHOWN = """([selector, names]) => {
  const cards = [...document.querySelectorAll(selector)];
  const shown = cards.map(card => [card.dataset.testid.replace("template-workflow-", ""),
                                   card.querySelector("h3").textContent.trim()]);
  return shown.length >= 20 && shown.every(([name]) => names.includes(name)) ? shown : null;
}"""


def is_our_picture(response):
    return f"/workflow_templates/{PACK_NAME}/" in response.url and response.url.endswith(".jpg")


def test_workflows_are_found_by_their_titles_and_pictures(canvas):
    """The page itself shows those of a pack by file name; a click opens one."""
    page = canvas.page
    with page.expect_response(is_our_picture) as picture:
        page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        page.get_by_text(PACK_NAME, exact=True).first.click()
        shown = page.wait_for_function(SHOWN, arg=[CARD, list(TITLES)]).json_value()
    assert picture.value.ok
    assert {name: title for name, title in shown} == {name: TITLES[name] for name, _ in shown}
    page.wait_for_timeout(1000)
    canvas.photograph("template browser")
    page.locator(CARD).first.click()
    page.wait_for_function("app.graph.nodes.some(node => node.type.startsWith('Wan'))")
