// The page: the form, and what it is connected with.

import { ask, base64, make, send } from "./api.js";
import { Gallery } from "./gallery.js";
import { Learn } from "./learn.js";
import { Queue } from "./queue.js";
import { Regions } from "./regions.js";

const $ = (id) => document.getElementById(id);
const form = $("ask");
const fields = form.elements;
const problem = $("problem");
let server = null;
let concepts = [];

const regions = new Regions($("canvas"), $("region-list"), form);
const gallery = new Gallery($("gallery"), $("gallery-empty"), $("more"), takeSettings);
const queue = new Queue($("queue"), $("queue-empty"), $("spoken"), ended);
let learn = null;

$("add-box").addEventListener("click", () => regions.addBox());
$("tools").addEventListener("change", () => {
  $("brush-width").hidden = $("brush-erases").hidden = regions.tool() !== "brush";
});
for (const name of ["width", "height"]) fields[name].addEventListener("input", size);

function size() {
  regions.setSize(
    Number(fields.width.value) || 1,
    Number(fields.height.value) || Number(fields.width.value) || 1,
  );
}

/** Concepts in use, with their strengths. */
function used() {
  return [...$("concept-list").children].flatMap((row) => {
    const [check, strength] = row.querySelectorAll("input");
    return check.checked
      ? [{ name: check.value, scale: strength.value === "" ? 1 : Number(strength.value) }]
      : [];
  });
}

/** A job is over: what it came to is shown where it can be used. */
async function ended(job) {
  try {
    if (job.kind === "generate") await gallery.refresh();
    else await refresh();
  } catch (error) {
    problem.textContent = error.message;
  }
}

/** Reads again which models and concepts there are; what is chosen stays so. */
async function refresh() {
  server = await ask("/api/server");
  const chosen = fields.model.value || server.model;
  fields.model.replaceChildren(
    ...server.models.map((name) => make("option", { value: name }, name)),
  );
  fields.model.value = server.models.includes(chosen) ? chosen : server.model;
  const strengths = new Map(used().map((concept) => [concept.name, concept.scale]));
  ({ concepts } = await ask("/api/concepts"));
  showConcepts();
  for (const row of $("concept-list").children) {
    const [check, strength] = row.querySelectorAll("input");
    check.checked = strengths.has(check.value);
    strength.value = strengths.get(check.value) ?? 1;
  }
  learn.setConcepts(concepts.filter((concept) => !concept.error));
}

function showConcepts() {
  $("concepts").hidden = !concepts.length;
  $("concept-list").replaceChildren(
    ...concepts.map((concept) => {
      const words = concept.words.length ? `: ${concept.words.join(" ")}` : "";
      const check = make("input", {
        type: "checkbox",
        value: concept.name,
        onchange: () => regions.setConcepts(used()),
      });
      const strength = make("input", {
        type: "number",
        step: "any",
        value: 1,
        inputMode: "decimal",
        ariaLabel: `Strength of ${concept.name}`,
      });
      const note = concept.error ? make("span", { className: "bad" }, concept.error) : null;
      return make(
        "li",
        { className: "strength" },
        make("label", { className: "check" }, check, ` ${concept.name}${words}`, note),
        strength,
      );
    }),
  );
}

/** What is asked for, as the server takes it. */
async function asked() {
  const text = (name) => fields[name].value.trim();
  const job = {
    prompt: fields.prompt.value,
    negative: fields.negative.value,
    model: fields.model.value,
  };
  for (const name of ["width", "height", "steps", "guidance", "batch"]) {
    if (text(name) !== "") job[name] = Number(text(name));
  }
  if (text("sampler")) job.sampler = text("sampler");
  // As text: seeds have more digits than numbers here.
  if (text("seed")) job.seed = text("seed");
  if (text("schedule")) job.schedule = text("schedule");
  const concepts = used();
  if (concepts.length) job.concepts = concepts;
  const placed = regions.asked(job.width, job.height);
  if (placed.length) {
    job.regions = placed;
    if (fields.isolate.checked) job.isolate = true;
  }
  const [image] = fields.image.files;
  const [mask] = fields.mask.files;
  if (image) {
    job.image = await base64(image);
    if (text("strength") !== "") job.strength = Number(text("strength"));
  }
  if (mask) job.mask = await base64(mask);
  return job;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const button = form.querySelector("button.main");
  button.disabled = true;
  try {
    await send("/api/jobs", await asked());
  } catch (error) {
    problem.textContent = error.message;
    fields[error.field]?.focus?.();
  } finally {
    button.disabled = false;
  }
});

/** The name of a file without its folder and ending. */
const stem = (path) =>
  path
    .replaceAll("\\", "/")
    .split("/")
    .at(-1)
    .replace(/\.[^.]*$/, "");

/** Fills the form with a picture's own settings. */
function takeSettings(own) {
  fields.prompt.value = own.prompt ?? "";
  fields.negative.value = own.negative_prompt ?? "";
  for (const name of ["width", "height", "steps", "guidance", "seed"])
    fields[name].value = own[name] ?? "";
  fields.sampler.value = own.sampler ?? "";
  fields.schedule.value = own.schedule ?? (own.karras ? "karras" : "");
  fields.batch.value = 1;
  const notes = [];
  const model = own.model?.name
    ? server.models.includes(own.model.name)
      ? own.model.name
      : stem(own.model.name)
    : server.model;
  if (server.models.includes(model)) fields.model.value = model;
  else notes.push(`its model ${model} is not here`);
  const wanted = new Map(
    (own.concepts ?? []).map((concept) => [stem(concept.path), concept.scale]),
  );
  for (const row of $("concept-list").children) {
    const [check, strength] = row.querySelectorAll("input");
    check.checked = wanted.has(check.value);
    strength.value = wanted.get(check.value) ?? 1;
    wanted.delete(check.value);
  }
  for (const name of wanted.keys()) notes.push(`its concept ${name} is not here`);
  size();
  const lost = regions.take(own.regions?.region ?? [], own.width, own.height);
  fields.isolate.checked = Boolean(own.regions?.isolate);
  if (lost) notes.push(`${lost} of its regions are masks, which are to be painted anew`);
  if (own.image) notes.push("it began from a picture, which is to be chosen anew");
  regions.setConcepts(used());
  problem.textContent = notes.join("; ");
  fields.prompt.focus();
}

function connected(is) {
  $("about").textContent = is
    ? `${server.device}, version ${server.version}`
    : "the server does not answer; waiting for it";
}

async function start() {
  server = await ask("/api/server");
  fields.sampler.replaceChildren(
    make("option", { value: "" }, "the model's own"),
    ...server.samplers.map((sampler) => make("option", { value: sampler.name }, sampler.title)),
  );
  fields.schedule.replaceChildren(
    make("option", { value: "" }, "the model's own"),
    ...server.schedules.map((kind) => make("option", { value: kind.name }, kind.title)),
  );
  fields.steps.value = server.usual.steps;
  fields.steps.max = server.limits.steps;
  fields.batch.max = server.limits.batch;
  fields.strength.placeholder = server.usual.strength;
  fields.width.placeholder = fields.height.placeholder = "the model's";
  connected(true);
  learn = new Learn(server);
  await refresh();
  if (server.keeps) $("gallery-empty").textContent = "No picture yet.";
  await gallery.refresh();
  queue.listen(connected);
}

size();
start().catch((error) => {
  $("about").textContent = error.message;
});
