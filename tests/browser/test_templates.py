"""Our workflows in the page's template browser."""

import json

import pytest

from devhost.host import PACK_NAME, ROOT

pytest.importorskip("playwright.sync_api", reason="pip install playwright")

WORDS = json.loads((ROOT / "locales" / "en" / "main.json").read_text(encoding="utf-8"))["templateWorkflows"]
TITLES = WORDS["template"]["wan22-native"]


def test_workflows_are_found_by_their_titles_and_pictures(canvas):
    """The page itself shows those of a pack by file name; a click opens one."""
    page = canvas.page
    with page.expect_response("**/t2v_a14b.jpg") as picture:
        page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        page.get_by_text(PACK_NAME, exact=True).first.click()
        cards = {name: page.get_by_test_id(f"template-workflow-{name}") for name in TITLES}
        for name, card in cards.items():
            card.get_by_role("heading", name=TITLES[name], exact=True).wait_for()
        cards["t2v_a14b"].scroll_into_view_if_needed()
    assert picture.value.ok
    page.wait_for_timeout(1000)
    canvas.photograph("template browser")
    cards["t2v_a14b"].click()
    page.wait_for_function("app.graph.nodes.some(node => node.type === 'WanMoESampler')")
