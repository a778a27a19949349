// Plays the moving previews of our samplers on the node that is sampling.
import { after, api, make, NodeElement, nodeOf, RUN_ENDS } from "./host.js";
import { withStore } from "./stores.js";

const EVENT = "wan22.preview";
const SAMPLERS = [
  "WanMoESampler", "WanMultiGPUSampler", "WanLongVideo", "WanSpeechToVideo", "WanPoseAnimate", "WanAnimate2",
];
const HEIGHTS = [80, 360];
/** @type {Map<HostNode | null, Player>} */
const players = new Map();

/** All frames of the video so far, one after the other; new pictures go on at the frame that is shown. */
class Player {
  /** @param {HostNode} node */
  constructor(node) {
    this.node = node;
    this.canvas = make("canvas", "");
    const around = make("div", "wan22-preview", this.canvas);
    const options = { hideOnZoom: false, isShown: false };
    this.place = new NodeElement(node, "preview", around, () => this.height(), options);
    this.strip = new Image();
    this.strip.onload = () => this.draw();
    this.frame = 0;
    this.frames = 1;
    this.pause = 0; // milliseconds
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  height() {
    const { width, height } = this.canvas;
    const room = Math.max(100, this.node.size[0] - 20);
    return Math.min(HEIGHTS[1], Math.max(HEIGHTS[0], Math.round((room * height) / width)));
  }

  /** @param {{ image: string, frames: number, width: number, height: number, seconds: number }} message */
  play({ image, frames, width, height, seconds }) {
    // from now on the host's own preview, of the first frame alone, is left out; see wan22.css, too
    this.node.onDrawBackground = () => {};
    this.node.hideOutputImages = true; // newer pages, which take it for the film of the last run
    if (this.node.previewMediaType) this.node.previewMediaType = "image";
    this.place.element.classList.add("has-played");
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    if (!this.place.isShown) this.place.show();
    this.strip.src = `data:image/jpeg;base64,${image}`;
    const pause = (1000 * seconds) / frames;
    if (this.timer === undefined || this.frames !== frames || this.pause !== pause) {
      clearInterval(this.timer);
      this.timer = setInterval(() => this.step(), pause);
    }
    Object.assign(this, { frames, pause });
  }

  step() {
    this.frame += 1;
    this.draw();
  }

  draw() {
    if (!this.strip.complete || !this.strip.naturalWidth) return;
    this.frame %= this.frames;
    const { width, height } = this.canvas;
    this.canvas.getContext("2d")?.drawImage(this.strip, this.frame * width, 0, width, height, 0, 0, width, height);
    this.canvas.dataset.frame = String(this.frame);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.place.hide();
  }

  /** Leaves the place to the host, which shows the film or picture that the node has made.
   * @param {boolean} isFilm */
  leave(isFilm) {
    this.stop();
    this.place.element.classList.remove("has-played");
    Reflect.deleteProperty(this.node, "onDrawBackground");
    this.node.hideOutputImages = false;
    if (isFilm) this.node.previewMediaType = "video"; // older pages take it for a picture
  }
}

/** @param {HostNode | null} running */
function stopAllBut(running) {
  for (const [node, player] of players) if (node !== running) player.stop();
}

/**
 * A place for previews on a sampler, which is hidden while there are none.
 * @param {HostNode} node
 */
export function addPreview(node) {
  if (!SAMPLERS.includes(node.comfyClass)) return;
  const player = new Player(node);
  players.set(node, player);
  after(node, "onAdded", () => players.set(node, player));
  after(node, "onRemoved", () => {
    player.stop();
    players.delete(node);
  });
}

/** @param {{ node: string, display_node?: string, output?: { images?: unknown[], animated?: boolean[] } }} made */
function showMade({ node, display_node: shown = node, output }) {
  const player = players.get(nodeOf(shown));
  if (!player || !output?.images?.length) return;
  player.leave(Boolean(output.animated?.[0]));
  // the host takes its last preview for what was made, as long as it has one
  withStore("nodeOutput", (store) => store.setNodePreviewsByExecutionId?.(shown, []));
}

export function listenForPreviews() {
  api.addEventListener(EVENT, ({ detail }) => players.get(nodeOf(detail?.node))?.play(detail));
  api.addEventListener("executed", ({ detail }) => showMade(detail));
  api.addEventListener("executing", ({ detail }) => stopAllBut(detail == null ? null : nodeOf(detail)));
  for (const end of RUN_ENDS) api.addEventListener(end, () => stopAllBut(null));
}
