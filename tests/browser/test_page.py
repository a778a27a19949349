"""What people meet in the page: nodes in the search, blueprints, the schedule, sizes, runs, Cancel and errors."""

import json
import re

import pytest
from canvas import ERROR_NOTICE, FOUND_NODES

from demo.blueprints import ALL as BLUEPRINTS
from demo.blueprints import GIVEN, file_of
from devhost.host import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

EXAMPLES = ROOT / "example_workflows"
T2V = json.loads((EXAMPLES / "t2v_a14b.json").read_text())
LONG = json.loads((EXAMPLES / "long_video_i2v_a14b.json").read_text())
OWN = ("file", "upload")
TITLES = [
    words["display_name"] for words in json.loads((ROOT / "locales/en/nodeDefs.json").read_text()).values()
]
SMALL = {"width": 96, "height": 64, "frames": 33}
PREVIEW = ".wan22-preview canvas"
BADGES = {
    (kind, f"{expert}-noise expert{work}")
    for expert in ("high", "low")
    for kind, work in (("WanMoESampler", ""), ("WanDiTLoader", " at work"))
}


def chart(canvas):
    """What the only chart says on the left, when it has said it."""
    return canvas.page.locator(".wan22-chart .split")


def expect_text(locator, text):
    from playwright.sync_api import expect

    expect(locator).to_have_text(text, timeout=30_000)


def load_t2v(canvas, **sampler):
    canvas.drop("t2v.json", T2V)
    canvas.set("WanEmptyLatent", **SMALL)
    canvas.set("WanMoESampler", **sampler)
    canvas.show("WanMoESampler", zoom=0.75)


def add_by_search(canvas, timeout):
    """Adds the sampler as a user does who types into the search of nodes; most that it shows first is ours."""
    page = canvas.page
    page.locator("#graph-canvas").dblclick(position={"x": 700, "y": 800})
    # keys before that are lost
    page.wait_for_function("document.activeElement?.tagName === 'INPUT'", timeout=timeout)
    page.keyboard.type("wan")
    found = page.locator(FOUND_NODES)
    found.filter(has_text="Wan").nth(6).wait_for(timeout=timeout)
    page.wait_for_timeout(500)
    on_screen = [found.nth(place).inner_text() for place in range(7)]
    assert sum(any(title in text for title in TITLES) for text in on_screen) >= 4, on_screen
    canvas.photograph("search")
    page.keyboard.type(" moe sampler")
    page.wait_for_timeout(1000)  # a list that is drawn anew takes no click
    found.filter(has_text="Wan MoE Sampler").first.click(timeout=timeout)
    page.wait_for_function("app.graph.nodes.some(n => n.type === 'WanMoESampler')", timeout=timeout)


def test_nodes_are_found(canvas):
    """Double click, type, Enter."""
    page = canvas.page
    for attempt in range(4):
        try:
            add_by_search(canvas, 12_000)
            break
        except playwright.TimeoutError:  # a busy page loses double clicks and keys
            if attempt == 3:
                raise
            page.keyboard.press("Escape")
    canvas.show("WanMoESampler")
    expect_text(chart(canvas), "26 + 14 of 40 steps")
    canvas.photograph("added from search")


def values_of(node):
    """What a node of a prompt is set to, but for its wires and the user's own files."""
    return {k: v for k, v in node["inputs"].items() if not isinstance(v, list) and k not in OWN}


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.drawing)
def test_a_blueprint_is_the_workflow_in_one_node(canvas, blueprint):
    """It queues what the workflow does, with what is typed into it, and its inputs reach what they are called after."""
    listed = canvas.server.get("/global_subgraphs").values()
    assert blueprint.title in [entry["name"] for entry in listed]
    canvas.drop("blueprint.json", json.loads(file_of(blueprint).read_text(encoding="utf-8")))
    (node,) = canvas.nodes()
    names = {*blueprint.widgets, "video"} - {"frames"}
    slots = canvas.page.evaluate(
        "() => { const [n] = app.graph.nodes; return [...n.inputs, ...n.outputs].map(s => s.name) }"
    )
    assert names <= set(slots)
    canvas.set(node["type"], prompt="a lighthouse")
    queued = canvas.page.evaluate("app.graphToPrompt().then(prompt => prompt.output)").values()
    api = json.loads((ROOT / "example_workflows" / "api" / f"{blueprint.drawing}.json").read_text())
    inside = {key: node for key, node in api.items() if node["class_type"] not in GIVEN}
    assert sorted(n["class_type"] for n in queued) == sorted(n["class_type"] for n in inside.values())
    for kind in {n["class_type"] for n in inside.values() if n["class_type"].startswith("Wan")}:
        shown, wanted = (
            sorted((values_of(node) for node in nodes if node["class_type"] == kind), key=str)
            for nodes in (queued, inside.values())
        )
        if kind == "WanT5Encode":
            assert [values["positive"] for values in shown] == ["a lighthouse"]
        else:
            assert all(some.items() <= all_.items() for some, all_ in zip(wanted, shown, strict=True)), kind
    canvas.photograph(f"blueprint {blueprint.drawing}")


def test_settings_of_custom_alone_are_folded(canvas):
    """The page hides them where it can, and shows them with that preset."""
    canvas.add("WanMoESampler")

    def folded():
        return canvas.page.evaluate(
            "() => { const [n] = app.graph.nodes; return [Boolean(n.showAdvanced),"
            "n.widgets.filter(w => w.advanced || w.options.advanced).map(w => w.name)] }"
        )

    settings = [
        "steps",
        "shift",
        "cfg_high",
        "cfg_low",
        "boundary",
        "sampler",
        "scheduler",
        "base_steps",
        "base_cfg",
    ]
    assert folded() == [False, settings]
    canvas.set("WanMoESampler", preset="custom")
    assert folded() == [True, settings]
    canvas.set("WanMoESampler", preset="I2V-A14B")
    assert folded() == [False, settings]


def test_the_chart_follows_the_widgets(canvas):
    """The numbers are those of the sampler's own function, on the server."""
    canvas.add("WanMoESampler")
    canvas.show("WanMoESampler")
    expect_text(chart(canvas), "26 + 14 of 40 steps")
    canvas.photograph("chart preset")
    canvas.set("WanMoESampler", preset="I2V-A14B")
    expect_text(chart(canvas), "15 + 25 of 40 steps")
    canvas.set("WanMoESampler", preset="TI2V-5B")
    expect_text(chart(canvas), "50 steps")
    custom = {"steps": 20, "shift": 12.0, "boundary": 0.875}
    seen = []
    for change in (
        {"preset": "custom"},
        {"shift": 3.0},
        {"boundary": 0.5},
        {"steps": 11},
        {"sampler": "wan dpm++"},
    ):
        custom |= change
        canvas.set("WanMoESampler", **custom)
        answer = canvas.server.get("/wan22/schedule", **custom)
        high, steps = answer["at_high"], custom["steps"]
        expect_text(chart(canvas), f"{high} + {steps - high} of {steps} steps")
        seen.append((high, steps))
    assert len(set(seen)) >= 4, seen
    part = {"steps": 20, "shift": 5.0, "boundary": 0.875, "start_step": 3, "end_step": 12}
    canvas.set("WanMoESampler", **part)
    high = canvas.server.get("/wan22/schedule", **custom | part)["at_high"]
    assert 0 < high < 9
    expect_text(chart(canvas), f"{high} + {9 - high} of 20 steps")
    left_out = canvas.page.locator(".wan22-chart .bar.left-out")
    assert left_out.get_attribute("data-steps") == "11"
    canvas.photograph("chart part of a run")
    canvas.set("WanMoESampler", start_step=30)
    expect_text(chart(canvas), re.compile("no steps are left between start_step 30 and end_step 12"))
    canvas.problems.clear()  # Chromium notes down that the server said no


def test_the_chart_shows_the_steps_of_a_base_model(canvas):
    canvas.add("WanMoESampler")
    canvas.show("WanMoESampler")
    canvas.set("WanMoESampler", preset="I2V-A14B 4-step LoRA", base_steps=1)
    expect_text(chart(canvas), "1 + 1 + 2 of 4 steps")
    bars = canvas.page.locator(".wan22-chart .bar.base")
    assert bars.get_attribute("data-steps") == "1"
    canvas.photograph("chart of three phases")
    canvas.set("WanMoESampler", base_steps=3)
    expect_text(chart(canvas), re.compile("base_steps 3 goes past the boundary"))
    canvas.problems.clear()  # Chromium notes down that the server said no


def test_the_chart_knows_models_with_one_expert(canvas):
    canvas.drop("t2v.json", T2V)
    expect_text(chart(canvas), "26 + 14 of 40 steps")
    canvas.page.evaluate(
        "() => { const n = app.graph.nodes.find(n => n.type === 'WanMoESampler');"
        "n.disconnectInput(n.inputs.findIndex(i => i.name === 'model_low')); }"
    )
    expect_text(chart(canvas), "40 steps")
    assert canvas.page.locator(".wan22-chart .boundary").count() == 0


def readout(canvas):
    return canvas.page.locator(".wan22-readout")


def test_sizes_snap_when_they_are_edited(canvas):
    canvas.add("WanEmptyLatent")
    canvas.show("WanEmptyLatent")
    expect_text(readout(canvas), "81 frames = 5.06 s at 16 fps · 832 × 480")
    for name, typed, value in (("frames", "48", 49), ("width", "850", 848), ("height", "3", 16)):
        canvas.enter("WanEmptyLatent", name, typed)
        assert canvas.values("WanEmptyLatent")[name] == value
    expect_text(readout(canvas), "49 frames = 3.06 s at 16 fps · 848 × 16")


def test_sizes_of_the_2_2_vae_are_multiples_of_32(canvas):
    canvas.add("WanEmptyLatent")
    canvas.show("WanEmptyLatent")
    canvas.page.evaluate(
        """() => {
          const loader = LiteGraph.createNode("WanVAELoader");
          loader.pos = [0, 200];
          app.graph.add(loader);
          loader.widgets[0].value = "wan/TI2V-5B/Wan2.2_VAE.pth";
          const latent = app.graph.nodes.find(n => n.type === "WanEmptyLatent");
          loader.connect(0, latent, latent.inputs.findIndex(i => i.name === "vae"));
        }"""
    )
    canvas.set("WanEmptyLatent", frames=121)
    expect_text(readout(canvas), "121 frames = 5.04 s at 24 fps · 832 × 480")
    canvas.enter("WanEmptyLatent", "width", "850")
    canvas.enter("WanEmptyLatent", "height", "720")
    values = canvas.values("WanEmptyLatent")
    assert (values["width"], values["height"]) == (864, 736)


def test_a_loaded_value_is_never_changed(canvas):
    """What cannot be made is kept and shown in red, until somebody edits it."""
    workflow = json.loads(json.dumps(T2V))
    latent = next(node for node in workflow["nodes"] if node["type"] == "WanEmptyLatent")
    latent["widgets_values"] = [835, 480, 80, 1]
    canvas.drop("odd.json", workflow)
    canvas.show("WanEmptyLatent")
    expect_text(readout(canvas), "frames 80 cannot be made, 81 can")
    assert "wrong" in readout(canvas).get_attribute("class")
    values = canvas.values("WanEmptyLatent")
    assert (values["width"], values["frames"]) == (835, 80)
    canvas.set("WanEmptyLatent", frames=80)
    expect_text(readout(canvas), "width 835 cannot be made, 832 can")
    assert canvas.values("WanEmptyLatent")["frames"] == 81


def watch_run(canvas, until):
    """Frames and pictures of the preview, steps of the marker and badges, on nodes and in elements, seen until then.

    The page tells of each change itself: a look at it now and then would miss some where the machine is busy."""
    canvas.page.evaluate(
        """() => {
          const seen = (window.seen = { frames: [], pictures: [], steps: [], badges: [], marker: [], elements: [] });
          const add = (list, value) => { if (value != null && !list.includes(value)) list.push(value); };
          window.watching = new MutationObserver(() => {
            const canvas = document.querySelector(".wan22-preview:not([hidden]) canvas");
            if (canvas?.dataset.frame) {
              add(seen.frames, canvas.dataset.frame);
              add(seen.pictures, canvas.toDataURL());
            }
            const marker = document.querySelector(".wan22-chart .marker[visibility=visible]");
            add(seen.steps, marker?.dataset.step);
            add(seen.marker, marker?.getAttribute("x1"));
            for (const n of app.graph.nodes)
              for (const b of n.badges ?? []) {
                const badge = typeof b === "function" ? b() : b;
                if (badge.text.includes("expert")) add(seen.badges, `${n.id} ${badge.text}`);
              }
            for (const part of document.querySelectorAll(".lg-node div")) {
              const text = /^\\w+-noise expert( at work)?$/.exec(part.textContent.trim())?.[0];
              if (text) add(seen.elements, `${part.closest(".lg-node").dataset.nodeId} ${text}`);
            }
          });
          const attributeFilter = ["data-frame", "data-step", "visibility"];
          window.watching.observe(document, { subtree: true, attributeFilter });
        }"""
    )
    canvas.run()
    until()
    canvas.page.evaluate("window.watching.disconnect()")
    return canvas.page.evaluate("window.seen")


def check_badges(canvas, badges):
    """Both experts were named on the sampler, and each on the loader that it comes from."""
    nodes = {str(node["id"]): node for node in canvas.nodes()}
    parts = [badge.split(" ", 1) for badge in badges]
    assert {(nodes[number]["type"], text) for number, text in parts} == BADGES
    for number, text in parts:
        if nodes[number]["type"] == "WanDiTLoader":
            assert nodes[number]["values"]["model_name"].endswith(f"{text.split('-')[0]}_noise_model")


def test_a_run_is_seen(canvas):
    """Chart, moving preview and badges while it runs; the report, and none of them, after it."""
    load_t2v(canvas, seed=1)
    page = canvas.page
    report = page.locator(".wan22-box.report:visible")

    def until():
        page.locator(f"{PREVIEW}[data-frame]:visible").wait_for()
        canvas.check_layout()
        canvas.photograph("sampling")
        page.locator(".wan22-chart .note").filter(has_text="low-noise expert").wait_for()
        canvas.photograph("sampling, low-noise expert")
        report.filter(has_text="26 of 40 steps on the high-noise expert").wait_for(timeout=60_000)

    seen = watch_run(canvas, until)
    assert len(seen["frames"]) >= 3 and len(set(seen["pictures"])) >= 3, "the preview moves"
    steps = [int(step) for step in seen["steps"]]
    assert len(steps) >= 10 and steps == sorted(steps) and max(steps) > 26, steps
    assert len(seen["marker"]) >= 10
    check_badges(canvas, seen["badges"])
    canvas.wait_until_idle()
    page.wait_for_timeout(300)
    canvas.photograph("after the run")
    assert page.locator(f"{PREVIEW}:visible").count() == 0
    assert page.locator(".wan22-chart .marker[visibility=visible]").count() == 0
    note = page.locator(".wan22-chart .note")
    expect_text(note, "shift 12, boundary 0.875")


def test_what_is_shown_is_not_saved(canvas):
    """A workflow saved after a run has the values of its widgets and nothing of ours."""
    load_t2v(canvas, preset="custom", steps=2, seed=2)
    canvas.run()
    canvas.page.locator(".wan22-box.report:visible").wait_for()
    saved = canvas.page.evaluate("app.graph.serialize()")
    shown = {"size", "schedule", "preview", "report"}
    for node, before in zip(saved["nodes"], canvas.nodes(), strict=True):
        if node["type"].startswith("Wan"):
            own = {name: value for name, value in before["values"].items() if name not in shown}
            assert node["widgets_values"] == list(own.values())
    prompt = canvas.page.evaluate("app.graphToPrompt().then(p => p.output)")
    assert not shown & {name for node in prompt.values() for name in node["inputs"]}


def test_a_sampler_in_a_subgraph(canvas):
    """Its id in the run is another than on the canvas."""
    load_t2v(canvas, preset="custom", steps=3, seed=5)
    canvas.page.evaluate(
        """() => {
          const sampler = app.graph.nodes.find(n => n.type === "WanMoESampler");
          app.graph.convertToSubgraph(new Set([sampler]));
          const inner = app.graph.nodes.find(n => n.subgraph).subgraph.nodes[0];
          const element = (name) => inner.widgets.find(w => w.name === name).element;
          window.steps = new Set();
          const marker = () => element("schedule").querySelector(".marker")?.dataset.step;
          window.watching = new MutationObserver(() => window.steps.add(marker()));
          window.watching.observe(element("schedule"), { subtree: true, attributeFilter: ["data-step"] });
          window.report = () => element("report").textContent;
        }"""
    )
    canvas.run()
    canvas.page.wait_for_function("window.report().startsWith('2 of 3 steps on the high-noise expert')")
    assert canvas.page.evaluate("window.watching.disconnect() ?? window.steps.has('2')")


def test_cancel(canvas):
    load_t2v(canvas, preset="custom", steps=1000, seed=3)
    page = canvas.page
    canvas.run()
    page.locator(f"{PREVIEW}[data-frame]:visible").wait_for()
    # the host's page draws its button anew as a run gets going, and a click on the old one is lost
    page.wait_for_function("document.querySelector('.wan22-chart .marker')?.dataset.step >= 5")
    with page.expect_request("**/interrupt"):
        page.get_by_role("button", name="Cancel current run").click()
    canvas.wait_until_idle()
    page.locator(f"{PREVIEW}:visible").wait_for(state="detached")
    assert page.locator(".wan22-chart .marker[visibility=visible]").count() == 0
    assert page.locator(".wan22-box:visible").count() == 0
    (entry, *_) = sorted(canvas.server.get("/history").values(), key=lambda e: -e["prompt"][0])
    assert any(name == "execution_interrupted" for name, _ in entry["status"]["messages"])


def test_an_error_is_shown_with_what_to_do(canvas):
    """On the node, until the next run; the page gives notice of it by itself, once."""
    workflow = json.loads(json.dumps(T2V))
    latent = next(node for node in workflow["nodes"] if node["type"] == "WanEmptyLatent")
    latent["widgets_values"] = [64, 64, 80, 1]
    canvas.drop("odd.json", workflow)
    canvas.show("WanEmptyLatent")
    page = canvas.page
    canvas.run()
    error = page.locator(".wan22-box.error:visible")
    expect_text(error, "frames 80 is not 4n + 1 (1, 5, 9 ... 81); the nearest that is: 81")
    page.locator(ERROR_NOTICE).filter(has_text=re.compile("Wan Empty Latent|frames 80")).first.wait_for()
    assert page.locator(".p-toast-message:visible").count() == 0
    canvas.photograph("error, the host's notice")
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    canvas.photograph("error")
    canvas.set("WanEmptyLatent", frames=5)
    canvas.set("WanMoESampler", preset="custom", steps=1)
    canvas.run()
    error.wait_for(state="hidden")
    page.locator(".wan22-box.report:visible").wait_for()


@pytest.mark.parametrize(
    ("folder", "advice"),
    [
        ("wan/Wan2.2-T2V-A14B/high_noise_model",
         ": get huggingface.co/Wan-AI/Wan2.2-T2V-A14B as the folder models/wan/Wan2.2-T2V-A14B"),
        ("wan/T2V-A14B/another", ": get huggingface.co/Wan-AI/Wan2.2-T2V-A14B as the folder models/wan/T2V-A14B"),
        ("wan/T2V-A14B-2/high_noise_model", ""),
    ],
)  # fmt: skip
def test_a_folder_that_is_missing_is_named(canvas, folder, advice):
    """Which release it belongs to, and where that is published; until another is chosen."""
    workflow = json.loads(json.dumps(T2V))
    (loader, *_) = (node for node in workflow["nodes"] if node["type"] == "WanDiTLoader")
    loader["widgets_values"][0] = folder
    canvas.drop("elsewhere.json", workflow)
    hint = canvas.page.locator(".wan22-box.error:visible")
    hint.wait_for()
    assert hint.count() == 1
    assert hint.text_content().endswith(f"{folder} is not there{advice}")
    canvas.photograph("a folder is missing")
    canvas.set("WanDiTLoader", model_name="wan/T2V-A14B/high_noise_model")
    hint.wait_for(state="hidden")


def test_model_info_is_shown_on_the_node(canvas):
    canvas.add("WanModelInfo")
    canvas.show("WanModelInfo")
    canvas.set("WanModelInfo", file_name="wan/T2V-A14B/high_noise_model")
    canvas.run()
    report = canvas.page.locator(".wan22-box.report:visible")
    report.filter(has_text="goes with the Wan 2.1 VAE").wait_for()
    canvas.photograph("model info")


# in each picture of the page: whether a sampler has our preview and the page's, and whether that one is seen then
WATCH_PREVIEWS = """(ours) => {
  window.previews = { both: false, seen: false };
  const look = () => {
    for (const picture of document.querySelectorAll(".lg-node img[src^='blob:']")) {
      if (!picture.closest(".lg-node").querySelector(`${ours}[data-frame]`)) continue;
      window.previews.both = true;
      window.previews.seen ||= picture.checkVisibility();
    }
    requestAnimationFrame(look);
  };
  look();
}"""


def test_nodes_as_elements(canvas):
    """The page's newer kind of nodes, which are elements: the same is shown on them."""
    page = canvas.page
    canvas.as_elements(True)
    load_t2v(canvas, preset="custom", steps=30, seed=4)
    node = page.locator(".lg-node").filter(has_text="Wan MoE Sampler")
    expect_text(node.locator(".wan22-chart .split"), "19 + 11 of 30 steps")
    expect_text(page.locator(".lg-node .wan22-readout"), "33 frames = 2.06 s at 16 fps · 96 × 64")
    assert page.locator(".lg-node .wan22-readout").evaluate("e => e.offsetHeight") == 16
    latent = page.locator(".lg-node").filter(has_text="Wan Empty Latent")
    frames = latent.locator(".lg-node-widget").filter(has_text="frames").locator("input").first
    canvas.show("WanEmptyLatent")
    frames.click(force=True)  # newer pages lay over it what a drag changes it by
    page.keyboard.press("Control+a")
    page.keyboard.type("24")
    page.keyboard.press("Enter")
    expect_text(page.locator(".lg-node .wan22-readout"), "25 frames = 1.56 s at 16 fps · 96 × 64")
    assert canvas.values("WanEmptyLatent")["frames"] == 25
    page.wait_for_function("e => e.value === '25'", arg=frames.element_handle())
    canvas.show("WanMoESampler", zoom=0.75)

    def until():
        node.locator(f"{PREVIEW}[data-frame]").wait_for()
        for part in (".wan22-chart", "[name=preset], :text-is('preset')", ":text-is('latent_image')"):
            assert node.locator(part).first.is_visible(), part
        canvas.check_layout()
        canvas.photograph("nodes as elements")
        node.locator(".wan22-box.report").filter(has_text="19 of 30").wait_for(timeout=60_000)

    page.evaluate(WATCH_PREVIEWS, PREVIEW)
    seen = watch_run(canvas, until)
    # the page's own preview comes with each step, and is not shown as well
    assert page.evaluate("window.previews") == {"both": True, "seen": False}
    assert len(seen["frames"]) >= 3 and len(seen["pictures"]) >= 3
    check_badges(canvas, seen["elements"])
    canvas.wait_until_idle()
    assert page.locator(".lg-node").filter(has_text="expert at work").count() == 0
    canvas.check_layout()
    canvas.photograph("nodes as elements, after the run")


# notes that our preview was visible, however shortly: a busy browser may draw no picture of the page in that time
_NOTE_PREVIEW = """(ours) => {
  window.wasShown = false;
  const noting = new MutationObserver(() => {
    window.wasShown ||= Boolean(document.querySelector(ours)?.checkVisibility());
    if (window.wasShown) noting.disconnect();
  });
  noting.observe(document, { subtree: true, childList: true, attributes: true });
}"""
_WIDTH = "app.graph.nodes.find(node => node.type === 'WanLongVideo').size[0]"


@pytest.mark.parametrize("as_elements", [False, True], ids=["canvas", "elements"])
def test_a_film_takes_the_place_of_its_preview(canvas, as_elements):
    """Of a long video, which a node has shown while it made it; run after run."""
    page = canvas.page
    canvas.as_elements(as_elements)
    canvas.drop("long.json", LONG)
    quick = {"width": 96, "height": 64, "clips": 1, "frames_per_clip": 17, "preset": "custom", "steps": 16}
    width = page.evaluate(_WIDTH)
    prefix = "film_of_elements" if as_elements else "film_of_canvas"
    for seed in (1, 2):
        canvas.set("WanLongVideo", **quick, seed=seed, filename_prefix=prefix)
        canvas.show("WanLongVideo", zoom=0.75)
        page.evaluate(_NOTE_PREVIEW, PREVIEW)
        canvas.run()
        page.wait_for_function("window.wasShown")
        assert page.locator(":text('failed to load')").count() == 0
        film = page.locator(f"video[src*='/view?'][src*='{prefix}_0000{seed}_.mp4']")
        film.wait_for()
        page.wait_for_function("film => film.readyState > 0", arg=film.element_handle())
        assert page.locator("video").count() == 1
        assert page.locator(".lg-node img[src^='blob:']").count() == 0
        canvas.wait_until_idle()
        page.wait_for_function(
            "() => !document.body.innerText.includes('clip 1 of 1')"
        )  # how much time was left
    assert page.evaluate(_WIDTH) == width
    canvas.photograph(f"film, {as_elements}")


# the text's colour and the first ground behind it that is not see-through, with how far the text is
_COLOURS = """() => [...document.querySelectorAll(
  ".wan22-readout, .wan22-chart .split, .wan22-chart .note, .wan22-chart .split > *, .wan22-box:not([hidden])")]
  .filter(e => e.textContent).map(e => {
    let ground = e, seen = 1;
    for (let at = e; at; at = at.parentElement) seen *= Number(getComputedStyle(at).opacity);
    while (ground && /, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    return [e.className, getComputedStyle(e).color, getComputedStyle(ground ?? document.body).backgroundColor, seen];
  })"""


def contrast(colour, ground):
    """The ratio of WCAG 2.2 of two colours as CSS writes them, "rgb(r, g, b)"."""

    def luminance(text):
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", text)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["dark", "light", "solarized", "arc", "nord", "github"])
def test_text_can_be_read_in_each_theme(canvas, theme):
    """At 4.5 : 1 at least, on a ground of its own."""
    page = canvas.page
    workflow = json.loads(json.dumps(T2V))
    for node in workflow["nodes"]:
        if node["type"] == "WanEmptyLatent":
            node["widgets_values"][2] = 80
        if node["type"] == "WanDiTLoader":
            node["widgets_values"][0] = "wan/T2V-A14B-2/high_noise_model"
    page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
    try:
        canvas.drop("odd.json", workflow)
        canvas.show_all()
        page.locator(".wan22-readout.wrong").wait_for()
        expect_text(chart(canvas), "26 + 14 of 40 steps")
        colours = page.evaluate(_COLOURS)
        assert {name.split()[0] for name, *_ in colours} >= {
            "wan22-readout",
            "wan22-box",
            "high",
            "low",
            "note",
        }
        for name, colour, ground, seen in colours:
            assert seen == 1 and contrast(colour, ground) >= 4.5, (name, colour, ground, seen)
        canvas.photograph(f"theme {theme}")
    finally:
        page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
