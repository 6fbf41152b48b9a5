// The queue: jobs as the server tells of them.

import { ask, make, view } from "./api.js";
import { came, title } from "./learn.js";

const KEPT = 12;

/** Seconds as people say them. */
function lasting(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function said(job) {
  if (job.state === "waiting") return job.ahead ? `waits, ${job.ahead} before it` : "waits";
  if (job.state === "running") {
    const gone = job.started ? `, ${lasting(Date.now() / 1000 - job.started)}` : "";
    return job.stage ? `${job.stage} ${job.done} of ${job.of}${gone}` : "begins";
  }
  if (job.state === "done") return `done in ${lasting(job.ended - job.started)}`;
  if (job.state === "failed") return "failed";
  return "cancelled";
}

/** How much of a job is done, as far as can be told. */
function share(job) {
  if (job.state !== "running") return 0;
  const done = job.done / Math.max(1, job.of);
  if (job.kind !== "generate") return done;
  return { sample: 0.95 * done, decode: 0.97 }[job.stage] ?? 0.01;
}

export class Queue {
  constructor(list, empty, spoken, ended) {
    Object.assign(this, { list, empty, spoken, ended });
    this.cards = new Map();
    this.states = new Map();
  }

  /** Listens, and again where the connection breaks. */
  listen(connected) {
    const events = new EventSource("/api/events");
    events.addEventListener("jobs", (event) => {
      connected(true);
      this.show(JSON.parse(event.data).jobs);
    });
    events.onerror = () => connected(false);
  }

  show(jobs) {
    const shown = jobs.slice(-KEPT).reverse();
    this.empty.hidden = shown.length > 0;
    const ids = new Set(shown.map((job) => job.id));
    for (const [id, card] of this.cards) {
      if (!ids.has(id)) {
        card.element.remove();
        this.cards.delete(id);
      }
    }
    let before = null;
    for (const job of shown) {
      let card = this.cards.get(job.id);
      if (!card) {
        card = this.card(job);
        this.cards.set(job.id, card);
      }
      this.update(card, job);
      // Only what is new is put in, so that nobody loses the place.
      if (!card.element.parentNode)
        before ? before.after(card.element) : this.list.prepend(card.element);
      before = card.element;
      const known = this.states.get(job.id);
      if (known && known !== job.state && job.ended) {
        this.spoken.textContent = `Job ${job.id} ${job.state}`;
        this.ended(job);
      }
      this.states.set(job.id, job.state);
    }
  }

  card(job) {
    const text = title(job);
    const state = make("p", { className: "hint" });
    const bar = make("progress", { max: 1, value: 0, ariaLabel: `Progress of job ${job.id}` });
    const cancel = make(
      "button",
      {
        type: "button",
        ariaLabel: `Cancel job ${job.id}`,
        onclick: () =>
          ask(`/api/jobs/${job.id}`, { method: "DELETE" }).catch((error) => {
            state.textContent = error.message;
          }),
      },
      "Cancel",
    );
    const notes = make("div");
    const result = make("div");
    const pictures = make("div", { className: "thumbs" });
    const preview = make("img", {
      className: "preview",
      alt: `Preview of job ${job.id}`,
      hidden: true,
    });
    const regions = job.asked.regions
      ? `, ${job.asked.regions} region${job.asked.regions > 1 ? "s" : ""}`
      : "";
    const element = make(
      "li",
      { id: `job-${job.id}` },
      make("div", { className: "row" }, make("p", {}, `${job.id}: ${text}${regions}`), cancel),
      state,
      bar,
      notes,
      preview,
      result,
      pictures,
    );
    return { element, state, bar, cancel, notes, preview, result, pictures, told: 0, text };
  }

  update(card, job) {
    const runs = job.state === "running" || job.state === "waiting";
    card.state.textContent = said(job);
    card.bar.hidden = card.cancel.hidden = !runs;
    card.bar.value = share(job);
    card.preview.hidden = !job.preview;
    if (job.preview && card.preview.getAttribute("src") !== job.preview)
      card.preview.src = job.preview;
    const notes = job.warnings.map((warning) =>
      make("p", { className: "hint" }, `note: ${warning}`),
    );
    if (job.state === "failed") notes.push(make("p", { className: "bad" }, job.error.message));
    card.notes.replaceChildren(...notes);
    const result = JSON.stringify(job.result);
    if (result !== card.known) card.result.replaceChildren(...came(job.result));
    card.known = result;
    for (const picture of job.pictures.slice(card.told)) {
      const alt = `${card.text}, seed ${picture.seed}`;
      const caption = `${card.text}\nseed ${picture.seed}, ${picture.width} x ${picture.height}`;
      card.pictures.append(
        make(
          "button",
          {
            type: "button",
            className: "thumb",
            ariaLabel: `Show large: ${alt}`,
            onclick: () => view(picture.url, alt, caption),
          },
          make("img", { src: picture.url, alt, loading: "lazy" }),
        ),
      );
    }
    card.told = job.pictures.length;
  }
}
