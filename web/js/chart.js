// Draws the noise schedule on the samplers with two experts: which of them takes which steps, and where a run is.
// The numbers come from the server, from the function that the sampler itself uses.
import { markExpert, unmarkAll } from "./badges.js";
import { after, api, isLinked, make, NodeElement, nodeOf, RUN_ENDS, widgetOf } from "./host.js";

const SAMPLERS = ["WanMoESampler", "WanMultiGPUSampler"];
const SETTINGS = [
  "preset", "steps", "shift", "cfg_high", "cfg_low", "boundary", "sampler", "scheduler", "start_step", "end_step",
];
const HEIGHT = 110;
const SVG = "http://www.w3.org/2000/svg";
const WAIT_MS = 80;
const charts = new Map(); // node -> chart

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

class Chart {
  constructor(node) {
    this.node = node;
    this.svg = shape("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
    this.split = make("span", "split");
    this.note = make("span", "note");
    this.element = make("div", "wan22-chart", this.svg, make("div", "lines", this.split, this.note));
    this.turn = 0;
    this.step = null;
  }

  /** Asks for the schedule of the widgets' values, soon: a drag changes them many times a second. */
  update() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT_MS);
  }

  async ask() {
    const query = new URLSearchParams();
    for (const name of SETTINGS) {
      const widget = widgetOf(this.node, name);
      if (widget) query.set(name, widget.value);
    }
    this.turn += 1;
    const turn = this.turn;
    let answer;
    try {
      const response = await api.fetchApi(`/wan22/schedule?${query}`);
      answer = await response.json();
    } catch (error) {
      answer = { error: `no schedule: ${error.message}` };
    }
    if (turn === this.turn) this.draw(answer);
  }

  /** Whether steps are shared: so they are before any model is connected. */
  get hasTwoExperts() {
    return isLinked(this.node, "model_low") || !isLinked(this.node, "model_high");
  }

  draw(schedule) {
    this.schedule = schedule.error ? null : schedule;
    this.svg.replaceChildren();
    if (schedule.error) {
      this.split.replaceChildren(make("span", "problem", schedule.error));
      this.note.textContent = "";
      return;
    }
    const { sigmas, boundary } = schedule;
    const steps = sigmas.length - 1;
    for (const kind of ["high", "low", "left-out"]) {
      const bars = [...Array(steps).keys()].filter((step) => this.kindOf(step) === kind);
      const path = bars.map((step) => {
        const [left, right] = [step + 0.1, step + 0.9].map((x) => ((100 * x) / steps).toFixed(3));
        return `M${left} 100V${(100 - 97 * sigmas[step]).toFixed(2)}H${right}V100Z`;
      });
      this.svg.append(shape("path", { class: `bar ${kind}`, d: path.join(""), "data-steps": bars.length }));
    }
    if (this.hasTwoExperts && boundary > 0) {
      const y = 100 - 97 * boundary;
      this.svg.append(shape("line", { class: "boundary", x1: 0, x2: 100, y1: y, y2: y }));
    }
    this.marker = shape("line", { class: "marker", y1: 0, y2: 100, visibility: "hidden" });
    this.svg.append(this.marker);
    this.showStep();
  }

  kindOf(step) {
    const { first, last, high } = this.schedule;
    if (step < first || step >= last) return "left-out";
    return high[step] || !this.hasTwoExperts ? "high" : "low";
  }

  /** How the steps are shared, and beside it the settings, or what is being done. */
  showStep() {
    if (!this.schedule) return;
    const { sigmas, first, last, at_high: high, boundary, shift } = this.schedule;
    const [total, run] = [sigmas.length - 1, last - first];
    const alone = !this.hasTwoExperts || boundary === 0;
    const counts = alone ? [run] : [make("span", "high", high), " + ", make("span", "low", run - high)];
    this.split.replaceChildren(...counts, alone && run === total ? " steps" : ` of ${total} steps`);

    const linked = SETTINGS.filter((name) => isLinked(this.node, name));
    const settings = alone ? `shift ${shift}` : `shift ${shift}, boundary ${boundary}`;
    this.note.textContent = linked.length ? `but for the wired ${linked.join(", ")}` : settings;
    this.marker.setAttribute("visibility", this.step === null ? "hidden" : "visible");
    if (this.step === null) return;
    const x = (100 * (this.step + 0.5)) / total;
    this.marker.setAttribute("x1", x);
    this.marker.setAttribute("x2", x);
    this.marker.dataset.step = this.step;
    const expert = this.kindOf(this.step);
    this.note.textContent = `step ${this.step + 1}` + (alone ? "" : `: ${expert}-noise expert`);
    if (!alone) markExpert(this.node, expert);
  }

  /** `done` of `of` steps are done. Other progress than that of the schedule's steps is not shown here. */
  progress(done, of) {
    if (!this.schedule || of !== this.schedule.last - this.schedule.first) return;
    this.step = this.schedule.first + Math.min(done, of - 1);
    this.showStep();
  }

  /** Nothing is sampled any more. */
  stop() {
    if (this.step === null) return;
    this.step = null;
    this.showStep();
    unmarkAll();
  }
}

/** The chart on a sampler with two experts, which follows its widgets. */
export function addChart(node) {
  if (!SAMPLERS.includes(node.comfyClass)) return;
  const chart = new Chart(node);
  new NodeElement(node, "schedule", chart.element, () => HEIGHT, { hideOnZoom: false });
  charts.set(node, chart);
  const update = () => chart.update();
  for (const name of SETTINGS) {
    const widget = widgetOf(node, name);
    if (widget) after(widget, "callback", update);
  }
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, update);
  after(node, "onAdded", () => charts.set(node, chart));
  after(node, "onRemoved", () => charts.delete(node));
  update();
}

export function listenForSteps() {
  const chartOf = (id) => charts.get(nodeOf(id));
  const stopAllBut = (running) => {
    for (const chart of charts.values()) if (chart !== running) chart.stop();
  };
  api.addEventListener("progress", ({ detail }) => chartOf(detail.node)?.progress(detail.value, detail.max));
  api.addEventListener("progress_state", ({ detail }) => {
    for (const [id, { state, value, max }] of Object.entries(detail.nodes ?? {})) {
      if (state === "running") chartOf(id)?.progress(value, max);
      else chartOf(id)?.stop();
    }
  });
  api.addEventListener("executing", ({ detail }) => stopAllBut(detail == null ? null : chartOf(detail)));
  for (const end of RUN_ENDS) api.addEventListener(end, () => stopAllBut(null));
}
