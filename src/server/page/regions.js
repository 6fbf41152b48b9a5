// Regions of the picture: drawn on a canvas, or by numbers; each with prompts and strengths.

import { make } from "./api.js";
import { blank, holds, middle, outline, sent, tinted } from "./shapes.js";

const HUES = [210, 30, 140, 330, 265, 80, 0, 180];
const NEAR = 12;

const clamp = (value) => Math.min(1, Math.max(0, value));
const short = (value) => Math.round(value * 1e4) / 1e4;

/** The canvas with its regions, and the list beneath it. */
export class Regions {
  constructor(canvas, list, tools) {
    Object.assign(this, { canvas, list, tools });
    this.regions = [];
    this.chosen = -1;
    this.drag = null;
    this.corners = null;
    this.concepts = [];
    this.aspect = 1;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", () => this.up());
    canvas.addEventListener("pointercancel", () => this.up());
    canvas.addEventListener("dblclick", () => this.close());
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** The picture's proportions. */
  setSize(width, height) {
    this.aspect = width > 0 && height > 0 ? width / height : 1;
    this.canvas.style.aspectRatio = String(this.aspect);
    this.draw();
  }

  setConcepts(concepts) {
    this.concepts = concepts;
    this.show();
  }

  tool() {
    return this.tools.elements.tool.value;
  }

  /** Where an event is, as shares of the picture. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      clamp((event.clientX - box.left) / box.width),
      clamp((event.clientY - box.top) / box.height),
    ];
  }

  add(region) {
    const own = { prompt: "", negative: "", strengths: {}, soft: 0, ...region };
    this.regions.push(own);
    this.chosen = this.regions.length - 1;
    this.show();
  }

  addBox() {
    const shift = (this.regions.length % 4) * 0.08;
    this.add({ kind: "box", box: [0.1 + shift, 0.1 + shift, 0.5 + shift, 0.7 + shift] });
    this.canvas.focus();
  }

  remove(index) {
    this.regions.splice(index, 1);
    this.chosen = Math.min(this.chosen, this.regions.length - 1);
    this.show();
  }

  // Drawing.

  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.place(event);
    const tool = this.tool();
    if (tool === "box") {
      this.drag = { kind: "new", from: at, to: at };
    } else if (tool === "polygon") {
      this.corner(at);
    } else if (tool === "brush") {
      if (this.regions[this.chosen]?.kind !== "brush")
        this.add({ kind: "brush", mask: blank(this.aspect) });
      this.drag = { kind: "brush", last: at };
      this.paint(at);
    } else {
      const found = this.regions.findLastIndex((region) => holds(region, at));
      if (found >= 0) {
        this.chosen = found;
        this.drag = { kind: "move", last: at };
        this.mark();
      }
    }
    this.draw();
  }

  moved(event) {
    const at = this.place(event);
    if (this.corners) this.pointer = at;
    if (this.drag?.kind === "new") this.drag.to = at;
    if (this.drag?.kind === "brush") this.paint(at);
    if (this.drag?.kind === "move") {
      this.shift(at[0] - this.drag.last[0], at[1] - this.drag.last[1]);
      this.drag.last = at;
    }
    if (this.drag || this.corners) this.draw();
  }

  up() {
    const drag = this.drag;
    this.drag = null;
    if (drag?.kind === "new") {
      const [left, right] = [drag.from[0], drag.to[0]].sort((a, b) => a - b);
      const [top, bottom] = [drag.from[1], drag.to[1]].sort((a, b) => a - b);
      if (right - left > 0.02 && bottom - top > 0.02) {
        this.add({ kind: "box", box: [left, top, right, bottom].map(short) });
      }
    }
    if (drag?.kind === "move") this.numbers(this.chosen);
    this.draw();
  }

  corner(at) {
    this.corners ??= [];
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = this.corners[0] ?? at;
    const near = Math.hypot((x - at[0]) * box.width, (y - at[1]) * box.height) < NEAR;
    if (this.corners.length > 2 && near) return this.close();
    this.corners.push(at.map(short));
  }

  close() {
    // A double click puts two corners at one place.
    const same = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) < 0.005;
    const corners = (this.corners ?? []).filter((at, i, all) => i === 0 || !same(at, all[i - 1]));
    this.corners = null;
    if (corners.length > 2) this.add({ kind: "polygon", polygon: corners });
    this.draw();
  }

  paint(at) {
    const mask = this.regions[this.chosen]?.mask;
    if (!mask) return;
    const pen = mask.getContext("2d");
    const [width, height] = [mask.width, mask.height];
    pen.globalCompositeOperation = this.tools.elements.erase.checked
      ? "destination-out"
      : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineCap = "round";
    pen.lineWidth = (this.tools.elements.brush.value / 100) * Math.min(width, height);
    pen.beginPath();
    pen.moveTo(this.drag.last[0] * width, this.drag.last[1] * height);
    pen.lineTo(at[0] * width, at[1] * height + 0.01);
    pen.stroke();
    this.drag.last = at;
  }

  /** Moves the chosen region, within the picture. */
  shift(x, y) {
    const region = this.regions[this.chosen];
    if (region?.kind === "box") {
      const [left, top, right, bottom] = region.box;
      x = Math.max(-left, Math.min(1 - right, x));
      y = Math.max(-top, Math.min(1 - bottom, y));
      region.box = [left + x, top + y, right + x, bottom + y].map(short);
    } else if (region?.kind === "polygon") {
      const xs = region.polygon.map((at) => at[0]);
      const ys = region.polygon.map((at) => at[1]);
      x = Math.max(-Math.min(...xs), Math.min(1 - Math.max(...xs), x));
      y = Math.max(-Math.min(...ys), Math.min(1 - Math.max(...ys), y));
      region.polygon = region.polygon.map((at) => [short(at[0] + x), short(at[1] + y)]);
    }
  }

  key(event) {
    const step = {
      ArrowLeft: [-0.01, 0],
      ArrowRight: [0.01, 0],
      ArrowUp: [0, -0.01],
      ArrowDown: [0, 0.01],
    };
    const [x, y] = step[event.key] ?? [0, 0];
    const region = this.regions[this.chosen];
    if (event.key === "Enter" && this.corners) this.close();
    else if (event.key === "Escape" && this.corners) this.corners = null;
    else if (event.key === "Delete" && region) this.remove(this.chosen);
    else if (step[event.key] && region) {
      if (event.shiftKey && region.kind === "box") {
        const [left, top, right, bottom] = region.box;
        const box = [left, top, clamp(right + x), clamp(bottom + y)].map(short);
        if (box[2] - box[0] > 0.02 && box[3] - box[1] > 0.02) region.box = box;
      } else {
        this.shift(x, y);
      }
      this.numbers(this.chosen);
    } else return;
    event.preventDefault();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const ink = getComputedStyle(canvas).color;
    this.regions.forEach((region, index) => {
      const hue = HUES[index % HUES.length];
      pen.fillStyle = `hsl(${hue} 80% 50% / .25)`;
      pen.strokeStyle = `hsl(${hue} 80% 45%)`;
      pen.lineWidth = (index === this.chosen ? 4 : 2) * scale;
      if (region.kind === "brush") {
        pen.drawImage(tinted(region.mask, `hsl(${hue} 80% 50% / .45)`), 0, 0, width, height);
      } else {
        const path = new Path2D();
        outline(region).forEach(([x, y], i) =>
          path[i ? "lineTo" : "moveTo"](x * width, y * height),
        );
        path.closePath();
        pen.fill(path, "evenodd");
        pen.stroke(path);
      }
      const [x, y] = middle(region);
      pen.fillStyle = ink;
      pen.font = `600 ${16 * scale}px system-ui, sans-serif`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(String(index + 1), x * width, y * height);
    });
    pen.strokeStyle = pen.fillStyle = ink;
    pen.lineWidth = 2 * scale;
    if (this.drag?.kind === "new") {
      const { from, to } = this.drag;
      pen.setLineDash([6 * scale, 4 * scale]);
      pen.strokeRect(
        from[0] * width,
        from[1] * height,
        (to[0] - from[0]) * width,
        (to[1] - from[1]) * height,
      );
      pen.setLineDash([]);
    }
    if (this.corners) {
      pen.beginPath();
      const line = this.pointer ? [...this.corners, this.pointer] : this.corners;
      line.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](x * width, y * height));
      pen.stroke();
      for (const [x, y] of this.corners)
        pen.fillRect(x * width - 3 * scale, y * height - 3 * scale, 6 * scale, 6 * scale);
    }
  }

  // The list.

  show() {
    this.list.replaceChildren(...this.regions.map((region, index) => this.card(region, index)));
    this.mark();
    this.draw();
  }

  mark() {
    [...this.list.children].forEach((card, index) =>
      card.classList.toggle("chosen", index === this.chosen),
    );
  }

  /** Writes a region's numbers into its card. */
  numbers(index) {
    const region = this.regions[index];
    if (region?.kind !== "box") return;
    this.list.children[index]?.querySelectorAll(".edges input").forEach((input, i) => {
      input.value = region.box[i];
    });
  }

  card(region, index) {
    const number = index + 1;
    const field = (name, label, rows) =>
      make(
        "label",
        {},
        label,
        make("textarea", {
          rows,
          value: region[name],
          name: `region-${number}-${name}`,
          oninput: (event) => {
            region[name] = event.target.value;
          },
        }),
      );
    const edges =
      region.kind !== "box"
        ? null
        : make(
            "div",
            { className: "edges" },
            ...["Left", "Top", "Right", "Bottom"].map((name, i) =>
              make(
                "label",
                {},
                name,
                make("input", {
                  type: "number",
                  min: 0,
                  max: 1,
                  step: "any",
                  value: region.box[i],
                  inputMode: "decimal",
                  onchange: (event) => {
                    const value = clamp(Number(event.target.value));
                    const box = region.box.with(i, value);
                    if (box[0] < box[2] && box[1] < box[3]) region.box = box;
                    event.target.value = region.box[i];
                    this.draw();
                  },
                }),
              ),
            ),
          );
    const strengths = this.concepts.map((concept) => {
      const id = `region-${number}-${concept.name}`;
      return make(
        "div",
        { className: "strength" },
        make("label", { htmlFor: id }, `Strength of ${concept.name} here`),
        make("input", {
          id,
          type: "number",
          step: "any",
          inputMode: "decimal",
          placeholder: "by words",
          value: region.strengths[concept.name] ?? "",
          oninput: (event) => {
            region.strengths[concept.name] = event.target.value;
          },
        }),
      );
    });
    const kinds = { box: "box", polygon: "polygon", brush: "brush" };
    const card = make(
      "li",
      {
        onfocusin: () => {
          this.chosen = index;
          this.mark();
          this.draw();
        },
      },
      make(
        "div",
        { className: "row" },
        make("h3", {}, `Region ${number} (${kinds[region.kind]})`),
        make(
          "button",
          {
            type: "button",
            ariaLabel: `Remove region ${number}`,
            onclick: () => this.remove(index),
          },
          "Remove",
        ),
      ),
      field("prompt", "Prompt", 2),
      field("negative", "Negative prompt (empty: the picture's)", 1),
      edges,
      ...strengths,
    );
    card.style.setProperty("--hue", `hsl(${HUES[index % HUES.length]} 80% 50%)`);
    return card;
  }

  // To the server and back.

  /** As the server takes them. */
  asked(width, height) {
    const used = new Set(this.concepts.map((concept) => concept.name));
    return this.regions.map((region) => {
      const told = { prompt: region.prompt };
      if (region.negative.trim()) told.negative = region.negative;
      if (region.soft) told.soft = region.soft;
      const strengths = Object.entries(region.strengths).filter(
        ([name, value]) => used.has(name) && value !== "",
      );
      if (strengths.length)
        told.concepts = Object.fromEntries(strengths.map(([name, value]) => [name, Number(value)]));
      if (region.kind === "box") told.box = region.box;
      if (region.kind === "polygon") told.polygon = region.polygon;
      if (region.kind === "brush") told.mask = sent(region.mask, width, height);
      return told;
    });
  }

  /** Takes regions as settings have them; masks are not in there, and are counted. */
  take(list, width, height) {
    let lost = 0;
    this.regions = [];
    for (const told of list) {
      const region = {
        prompt: told.prompt ?? "",
        negative: told.negative ?? "",
        soft: told.soft ?? 0,
        strengths: { ...told.concepts },
      };
      const share = (values) => values.some((value) => value > 1);
      if (told.box) {
        const [w, h] = share(told.box) ? [width, height] : [1, 1];
        const [left, top, right, bottom] = told.box;
        this.regions.push({
          ...region,
          kind: "box",
          box: [left / w, top / h, right / w, bottom / h].map(short),
        });
      } else if (told.polygon) {
        const [w, h] = share(told.polygon.flat()) ? [width, height] : [1, 1];
        this.regions.push({
          ...region,
          kind: "polygon",
          polygon: told.polygon.map(([x, y]) => [short(x / w), short(y / h)]),
        });
      } else if (told.mask) {
        lost += 1;
      } else {
        this.regions.push({ ...region, kind: "box", box: [0, 0, 1, 1] });
      }
    }
    this.chosen = this.regions.length - 1;
    this.show();
    return lost;
  }
}
