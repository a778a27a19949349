// Plays the moving previews of our samplers on the node that is sampling.
import { addElement, api, app, grow, isOurs, make, nodeOf, removeElement } from "./host.js";

const EVENT = "wan22.preview";
const HEIGHTS = [80, 360];
const players = new Map(); // by the id of the node in the running prompt

/** All frames of the video so far, one after the other; new pictures go on at the frame that is shown. */
class Player {
  constructor(node) {
    this.node = node;
    this.canvas = make("canvas", "");
    this.strip = new Image();
    this.frame = 0;
    this.strip.onload = () => this.draw();
    this.widget = addElement(node, "preview", make("div", "wan22-preview", this.canvas), () => this.height());
  }

  height() {
    const { width, height } = this.canvas;
    const room = Math.max(100, this.node.size[0] - 20);
    return Math.min(HEIGHTS[1], Math.max(HEIGHTS[0], Math.round((room * height) / width)));
  }

  show({ image, frames, width, height, seconds }) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      grow(this.node);
    }
    this.frames = frames;
    this.strip.src = `data:image/jpeg;base64,${image}`;
    if (this.seconds !== seconds) {
      clearInterval(this.timer);
      this.timer = setInterval(() => this.step(), (1000 * seconds) / frames);
      this.seconds = seconds;
    }
  }

  step() {
    this.frame += 1;
    this.draw();
  }

  draw() {
    if (!this.strip.complete || !this.strip.naturalWidth) return;
    this.frame %= this.frames;
    const { width, height } = this.canvas;
    this.canvas.getContext("2d").drawImage(this.strip, this.frame * width, 0, width, height, 0, 0, width, height);
    this.canvas.dataset.frame = this.frame;
  }

  remove() {
    clearInterval(this.timer);
    if (this.widget) removeElement(this.node, this.widget);
  }
}

function removeAllBut(running) {
  for (const [id, player] of players) {
    if (id === running) continue;
    player.remove();
    players.delete(id);
  }
}

app.registerExtension({
  name: "Wan22.Preview",
  setup() {
    api.addEventListener(EVENT, ({ detail }) => {
      const id = String(detail?.node);
      const node = nodeOf(id);
      if (!isOurs(node)) return;
      if (players.get(id)?.node !== node) {
        players.get(id)?.remove();
        players.set(id, new Player(node));
      }
      players.get(id).show(detail);
    });
    // the host's own preview, of the first frame, is not wanted beside ours
    const hide = (event) => {
      if (players.has(String(event.detail?.nodeId))) event.stopImmediatePropagation();
    };
    api.addEventListener("b_preview_with_metadata", hide, { capture: true });
    api.addEventListener("executing", ({ detail }) => removeAllBut(detail == null ? null : String(detail)));
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, () => removeAllBut(null));
    }
  },
});
