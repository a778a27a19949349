// Draws the noise schedule on the samplers with two experts: which of them, or of a base model before them, takes which
// steps, and where a run is.
// The numbers come from the server, from the function that the sampler itself uses, and so do the names of the widgets
// that count.
import { markExpert, SAMPLERS, unmarkAll } from "./badges.js";
import { after, api, CHANGES, isLinked, make, NodeElement, nodeOf, RUN_ENDS } from "./host.js";
import { say } from "./texts.js";

const MAKERS_OF_CLIPS = ["WanLongVideo"];
const HEIGHT = 110;
const SVG = "http://www.w3.org/2000/svg";
const WAIT_MS = 80;
/** @type {Map<HostNode | null, Chart>} */
const charts = new Map();

/**
 * What the server answers; steps from `first` up to `last` are run.
 * @typedef {object} Schedule
 * @property {number[]} sigmas one more than there are steps
 * @property {boolean[]} high whether a step is at high noise
 * @property {number} base how many of these, from the first on, the base model takes
 * @property {number} first
 * @property {number} last
 * @property {number} at_base
 * @property {number} at_high
 * @property {number} shift
 * @property {number} boundary
 * @property {string[]} settings the widgets that count
 */

/**
 * An SVG element.
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

class Chart {
  /** @param {HostNode} node */
  constructor(node) {
    this.node = node;
    /** @type {Schedule | null} */
    this.schedule = null;
    this.svg = shape("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
    this.split = make("span", "split");
    this.note = make("span", "note");
    this.element = make("div", "wan22-chart", this.svg, make("div", "lines", this.split, this.note));
    this.turn = 0;
    /** @type {number | null} */
    this.step = null;
    /** @type {string[] | null} the widgets that count, when the server has said which */
    this.settings = null;
    this.marker = shape("line", {});
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** @param {string} name of a widget */
  counts(name) {
    return !this.settings || this.settings.includes(name);
  }

  /** Asks for the schedule of the widgets' values, soon: a drag changes them many times a second. */
  update() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT_MS);
  }

  async ask() {
    const query = new URLSearchParams();
    for (const { name, value } of this.node.widgets ?? []) if (this.counts(name)) query.set(name, String(value));
    this.turn += 1;
    const turn = this.turn;
    let answer;
    try {
      const response = await api.fetchApi(`/wan22/schedule?${query}`);
      answer = await response.json();
    } catch (error) {
      answer = { error: say("no_schedule", { error: error instanceof Error ? error.message : String(error) }) };
    }
    if (turn === this.turn) this.draw(answer);
  }

  /** Whether steps are shared: so they are before any model is connected. */
  get hasTwoExperts() {
    return isLinked(this.node, "model_low") || !isLinked(this.node, "model_high");
  }

  /** @param {Schedule | { error: string }} answer */
  draw(answer) {
    this.svg.replaceChildren();
    if ("error" in answer) {
      this.schedule = null;
      this.split.replaceChildren(make("span", "problem", answer.error));
      this.note.textContent = "";
      return;
    }
    this.schedule = answer;
    this.settings = answer.settings;
    const { sigmas, boundary } = answer;
    const steps = sigmas.length - 1;
    for (const kind of ["base", "high", "low", "left-out"]) {
      const bars = [...Array(steps).keys()].filter((step) => this.kindOf(answer, step) === kind);
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

  /**
   * @param {Schedule} schedule
   * @param {number} step
   * @returns {"base" | "high" | "low" | "left-out"}
   */
  kindOf({ first, last, base, high }, step) {
    if (step < first || step >= last) return "left-out";
    if (step < base) return "base";
    return high[step] || !this.hasTwoExperts ? "high" : "low";
  }

  /**
   * @param {Schedule} schedule
   * @param {number} step one that is run
   * @returns {"base" | "high" | "low"}
   */
  expertAt(schedule, step) {
    const kind = this.kindOf(schedule, step);
    return kind === "left-out" ? "low" : kind;
  }

  /** How the steps are shared, and beside it the settings, or what is being done. */
  showStep() {
    if (!this.schedule) return;
    const { sigmas, first, last, at_base: base, at_high: high, boundary, shift } = this.schedule;
    const [total, run] = [sigmas.length - 1, last - first];
    const alone = !this.hasTwoExperts || boundary === 0;
    const shares = [make("span", "high", String(high)), " + ", make("span", "low", String(run - base - high))];
    const counts = alone ? [String(run - base)] : shares;
    if (base) counts.unshift(make("span", "base", String(base)), " + ");
    const whole = alone && run === total && !base ? [say("all_steps", { steps: total })] : null;
    this.split.replaceChildren(...(whole ?? [...counts, say("of_steps", { steps: total })]));

    const linked = this.schedule.settings.filter((name) => isLinked(this.node, name));
    const settings = say(alone ? "settings_alone" : "settings", { shift, boundary });
    this.note.textContent = linked.length ? say("wired", { names: linked.join(", ") }) : settings;
    this.marker.setAttribute("visibility", this.step === null ? "hidden" : "visible");
    if (this.step === null) return;
    const x = (100 * (this.step + 0.5)) / total;
    this.marker.setAttribute("x1", String(x));
    this.marker.setAttribute("x2", String(x));
    this.marker.setAttribute("data-step", String(this.step));
    const expert = this.expertAt(this.schedule, this.step);
    const single = alone && !this.schedule.base;
    this.note.textContent = say(single ? "step" : "step_of_expert", { step: this.step + 1, expert: say(expert) });
    if (!single) markExpert(this.node, expert);
  }

  /**
   * `done` of `of` steps are done, of one clip or several. Other progress than that of steps is not shown here.
   * @param {number} done
   * @param {number} of
   */
  progress(done, of) {
    if (!this.schedule) return;
    const steps = this.schedule.last - this.schedule.first;
    if (of % steps || (of !== steps && !MAKERS_OF_CLIPS.includes(this.node.comfyClass))) return;
    this.step = this.schedule.first + (Math.min(done, of - 1) % steps);
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

/**
 * The chart on a sampler with two experts, which follows its widgets.
 * @param {HostNode} node
 */
export function addChart(node) {
  if (!SAMPLERS.includes(node.comfyClass)) return;
  const chart = new Chart(node);
  new NodeElement(node, "schedule", chart.element, () => HEIGHT, { hideOnZoom: false });
  charts.set(node, chart);
  const update = () => chart.update();
  for (const widget of node.widgets ?? []) after(widget, "callback", () => chart.counts(widget.name) && update());
  for (const event of CHANGES) after(node, event, update);
  after(node, "onAdded", () => charts.set(node, chart));
  after(node, "onRemoved", () => charts.delete(node));
  update();
}

export function listenForSteps() {
  const chartOf = (/** @type {string | number} */ id) => charts.get(nodeOf(id));
  const stopAllBut = (/** @type {Chart | null | undefined} */ running) => {
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
