// Teaching a concept and fusing some: their forms, and what came of such a job.

import { make, send } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";

/** The forms; what the server has no folder for is not shown. */
export class Learn {
  constructor(server) {
    this.teach = document.getElementById("teach");
    this.fuse = document.getElementById("fuse");
    document.getElementById("teach-section").hidden = !(server.teaches && server.albums.length);
    document.getElementById("fuse-section").hidden = !server.fuses;
    const albums = server.albums.map((name) => make("option", { value: name }, name));
    this.teach.elements.pictures.replaceChildren(...albums);
    this.teach.elements.steps.max = server.limits.updates;
    this.asks(this.teach, () => this.lesson());
    this.asks(this.fuse, () => this.fusion());
  }

  asks(form, asked) {
    const problem = form.querySelector("[role=alert]");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      problem.textContent = "";
      try {
        await send("/api/jobs", asked());
      } catch (error) {
        problem.textContent = error.message;
      }
    });
  }

  setConcepts(concepts) {
    const row = ({ name }) =>
      make(
        "li",
        {},
        make(
          "label",
          { className: "check" },
          make("input", { type: "checkbox", value: name }),
          ` ${name}`,
        ),
      );
    document.getElementById("fuse-list").replaceChildren(...concepts.map(row));
  }

  lesson() {
    const fields = this.teach.elements;
    const job = { kind: "train", pictures: fields.pictures.value, name: fields.name.value };
    for (const name of ["concept_kind", "words", "class_word"]) {
      if (fields[name].value.trim()) job[name] = fields[name].value.trim();
    }
    job.steps = Number(fields.steps.value);
    if (fields.resume.checked) job.resume = true;
    job.model = document.getElementById("ask").elements.model.value;
    return job;
  }

  fusion() {
    const fields = this.fuse.elements;
    const checked = [...document.querySelectorAll("#fuse-list input:checked")];
    return {
      kind: "fuse",
      name: fields.name.value,
      steps: Number(fields.steps.value),
      concepts: checked.map((check) => check.value),
      model: document.getElementById("ask").elements.model.value,
    };
  }
}

/** The loss as a line. */
function curve(points) {
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "polyline");
  const [low, high] = [Math.min(...points), Math.max(...points)];
  const x = (index) => (index / Math.max(1, points.length - 1)) * 100;
  const y = (loss) => 38 - ((loss - low) / (high - low || 1)) * 36;
  line.setAttribute("points", points.map((loss, i) => `${x(i)},${y(loss)}`).join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  line.setAttribute("stroke-width", "2");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "curve");
  svg.setAttribute("role", "img");
  const [first, last] = [points[0], points.at(-1)].map((loss) => loss.toFixed(3));
  svg.setAttribute("aria-label", `Loss, from ${first} to ${last}`);
  svg.append(line);
  return [svg, make("p", { className: "hint" }, `loss ${first} to ${last}`)];
}

/** What came of a job, besides pictures. */
export function came(result) {
  if (!result) return [];
  if (result.report) {
    const report = make("pre", { tabIndex: 0 }, result.report);
    return [make("details", {}, make("summary", {}, `Report on ${result.model}`), report)];
  }
  return result.loss?.length ? curve(result.loss) : [];
}

/** What a job is called. */
export function title(job) {
  const { asked } = job;
  if (job.kind === "train") return `teach ${asked.name}`;
  if (job.kind === "fuse") return `fuse ${asked.concepts.join(", ")} into ${asked.name}`;
  return asked.prompt || "(no prompt)";
}
