"""A ComfyUI page as a test drives it: workflows, nodes by their type, and what goes wrong in our part of it."""

import json
import time
from itertools import combinations

from demo.drawings import NOTES, stage_of

OURS = "wan22"
SIZE = {"width": 1600, "height": 1000}
BIG_ENOUGH = 0.9  # zoom at which text on nodes can be read
# older pages | newer pages
RUN_BUTTON = "[data-testid=queue-button] button, button[data-testid=queue-button]"
FOUND_NODES = ".comfy-vue-node-search-container [role=option], [data-testid=result-item]"
ERROR_NOTICE = ".p-dialog, [data-testid=error-overlay]"

_DROP = """async ([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: "application/json" }));
  document.querySelector("#graph-canvas").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true, clientX: 700, clientY: 500 }));
}"""
# Playwright's own way fails where the page is denied an address meanwhile, as that of a model's file
_ADD_STYLE = """css => {
  const style = document.createElement("style");
  style.textContent = css;
  document.head.append(style);
}"""
_NODES = """() => app.graph.nodes.map(n => ({
  id: Number(n.id), type: n.type,
  known: Boolean(n.isVirtualNode || n.constructor.nodeData), errors: Boolean(n.has_errors),
  values: Object.fromEntries((n.widgets ?? []).map(w => [w.name, w.value])),
}))"""
_SET = """([type, values]) => {
  const node = app.graph.nodes.find(n => n.type === type);
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find(w => w.name === name);
    widget.value = value;
    widget.callback?.(value);
  }
}"""
_BOXES = """() => {
  const { scale, offset } = app.canvas.ds;
  const rect = app.canvas.canvas.getBoundingClientRect();
  return app.graph.nodes.map(n => {
    const element = document.querySelector(`.lg-node[data-node-id="${n.id}"]`)?.getBoundingClientRect();
    const [x, y, width, height] = element
      ? [(element.left - rect.left) / scale - offset[0], (element.top - rect.top) / scale - offset[1],
         element.width / scale, element.height / scale]
      : n.boundingRect;
    return { type: n.type, id: Number(n.id), left: x, top: y, right: x + width, bottom: y + height };
  });
}"""
_GROUPS = """() => app.graph.groups.map(g => (
  { title: g.title, left: g.pos[0], top: g.pos[1], right: g.pos[0] + g.size[0], bottom: g.pos[1] + g.size[1] }))"""
_SHOW = """([type, zoom]) => {
  const node = app.graph.nodes.find(n => n.type === type);
  const rect = app.canvas.canvas.getBoundingClientRect();
  app.canvas.ds.scale = zoom;
  app.canvas.ds.offset = [rect.width / 2 / zoom - node.pos[0] - node.size[0] / 2, 150 / zoom - node.pos[1]];
  app.canvas.setDirty(true, true);
}"""
_POINT = """([type, name]) => {
  const node = app.graph.nodes.find(n => n.type === type);
  const widget = node.widgets.find(w => w.name === name);
  const rect = app.canvas.canvas.getBoundingClientRect();
  const { scale, offset } = app.canvas.ds;
  const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10];
  return [rect.left + (x + offset[0]) * scale, rect.top + (y + offset[1]) * scale];
}"""


class Canvas:
    """A page of a running server; `problems` are errors that name our files or extension."""

    def __init__(self, chromium, server, screenshots):
        self.server, self._screenshots = server, screenshots
        self.problems = []
        self.page = chromium.new_page(viewport=SIZE)
        self.page.set_default_timeout(60_000)  # other tests may keep the machine busy
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._note(f"{error} {error.stack}"))
        self.open()

    def _heard(self, message):
        if message.type == "error":
            self._note(f"{message.text} {message.location.get('url', '')}")

    def _note(self, text):
        # the page asks its maker's registry about every node, which it cannot reach from here
        if OURS in text.lower() and "api.comfy.org" not in text:
            self.problems.append(text)

    def open(self):
        self.page.goto(f"http://{self.server.address}/")
        self.page.wait_for_function("window.app?.extensionManager?.toast && window.app?.graph?.nodes")
        self.page.wait_for_function("Boolean(LiteGraph.registered_node_types.WanMoESampler)")
        # the veil that lies over the page while a file loads stays there where its fading is interrupted
        self.page.evaluate(_ADD_STYLE, ".p-overlay-mask { animation: none !important; }")

    def clear(self):
        """No nodes, no dialogs, nothing running."""
        self.server.interrupt()
        self.wait_until_idle()
        self.page.keyboard.press("Escape")
        self.page.evaluate("app.extensionManager.toast.removeAll?.(); app.graph.clear()")
        self.as_elements(False)
        self.problems.clear()

    def wait_until_idle(self, seconds=60):
        deadline = time.monotonic() + seconds
        while any((queue := self.server.get("/queue")).values()):
            assert time.monotonic() < deadline, queue
            time.sleep(0.1)

    def drop(self, name, workflow):
        """Drops a workflow as a file, and waits until its nodes are there."""
        self.page.evaluate(_DROP, [name, json.dumps(workflow)])
        ids = sorted(node["id"] for node in workflow["nodes"])
        self.page.wait_for_function(
            "ids => app.graph.nodes.map(n => Number(n.id)).sort((a, b) => a - b).join() === ids.join()",
            arg=ids,
        )

    def nodes(self):
        return self.page.evaluate(_NODES)

    def boxes(self):
        """Where nodes are on the graph, with their titles, as they are drawn or laid out."""
        return self.page.evaluate(_BOXES)

    def groups(self):
        return self.page.evaluate(_GROUPS)

    def check_layout(self):
        """No node lies on another, and each inside its group."""
        boxes = self.boxes()
        for one, other in combinations(boxes, 2):
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            assert across <= 0 or down <= 0, (one["type"], other["type"], across, down)
        groups = {group["title"]: group for group in self.groups()}
        for box in boxes:
            if box["type"] not in NOTES:
                group = groups[stage_of(box["type"])]
                assert group["left"] <= box["left"] and box["right"] <= group["right"], (box, group)
                assert group["top"] <= box["top"] and box["bottom"] <= group["bottom"], (box, group)

    def as_elements(self, wanted):
        """Draws nodes as elements (Nodes 2.0), or on the canvas."""
        self.page.evaluate(
            "wanted => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', wanted)", wanted
        )

    def values(self, kind):
        return next(node["values"] for node in self.nodes() if node["type"] == kind)

    def add(self, kind):
        self.page.evaluate(
            "kind => { const n = LiteGraph.createNode(kind); n.pos = [300, 200]; app.graph.add(n); }", kind
        )

    def set(self, kind, **values):
        """Values as if a user had entered them."""
        self.page.evaluate(_SET, [kind, values])

    def enter(self, kind, name, text):
        """Clicks a number on a node's widget, types another one and presses Enter."""
        self.page.mouse.click(*self.page.evaluate(_POINT, [kind, name]))
        field = self.page.locator(".graphdialog input")
        field.fill(text)
        field.press("Enter")
        field.wait_for(state="detached")

    def show(self, kind, zoom=BIG_ENOUGH):
        """Moves a node to the middle of the page's top."""
        self.page.evaluate(_SHOW, [kind, zoom])
        self.page.wait_for_timeout(200)

    def show_all(self, zoom=0.65):
        """Moves the beginning of the workflow to the page's top left."""
        self.page.evaluate(
            "zoom => { const at = i => Math.min(...app.graph.nodes.map(n => n.pos[i])); const { ds } = app.canvas;"
            "ds.scale = zoom; ds.offset = [130 - at(0), 160 - at(1)]; app.canvas.setDirty(true, true); }",
            zoom,
        )
        self.page.wait_for_timeout(200)

    def run(self):
        # a tab that came to lie under the resting pointer shows its preview over the button
        self.page.mouse.move(SIZE["width"] / 2, SIZE["height"] / 2)
        self.page.locator(RUN_BUTTON).first.click()

    def photograph(self, name):
        """Draws what is to be seen, and keeps a picture of it where there is a folder for pictures."""
        self.page.evaluate("app.canvas.draw(true, true)")
        if self._screenshots is not None:
            self.page.screenshot(path=self._screenshots / f"{name}.png")
