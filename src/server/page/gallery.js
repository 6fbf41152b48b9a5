// The gallery: what lies in the folder of pictures, by the settings in the files.

import { ask, make, view } from "./api.js";

export class Gallery {
  constructor(list, empty, more, again) {
    Object.assign(this, { list, empty, more, again });
    this.names = [];
    more.addEventListener("click", () => this.older());
  }

  /** Shows the newest ones; those that are shown stay. */
  async refresh() {
    const { pictures, more } = await ask("/api/gallery");
    const known = new Set(this.names);
    const fresh = pictures.filter((picture) => !known.has(picture.name));
    this.list.prepend(...fresh.map((picture) => this.card(picture)));
    this.names.unshift(...fresh.map((picture) => picture.name));
    if (!known.size) this.more.hidden = !more;
    if (this.names.length) this.empty.hidden = true;
  }

  async older() {
    const last = encodeURIComponent(this.names.at(-1));
    const { pictures, more } = await ask(`/api/gallery?after=${last}`);
    this.list.append(...pictures.map((picture) => this.card(picture)));
    this.names.push(...pictures.map((picture) => picture.name));
    this.more.hidden = !more;
  }

  card(picture) {
    const prompt = picture.settings?.prompt || picture.name;
    const own = picture.settings?.mos;
    const again =
      own &&
      make(
        "button",
        {
          type: "button",
          ariaLabel: `Take the settings of ${picture.name}`,
          onclick: () => this.again(own),
        },
        "Take its settings",
      );
    return make(
      "li",
      {},
      make(
        "figure",
        {},
        make(
          "button",
          {
            type: "button",
            className: "thumb",
            ariaLabel: `Show large: ${prompt}`,
            onclick: () => view(picture.url, prompt, picture.settings?.text ?? picture.name),
          },
          make("img", { src: picture.url, alt: prompt, loading: "lazy" }),
        ),
        make(
          "figcaption",
          {},
          make("p", {}, prompt.length > 90 ? `${prompt.slice(0, 87)}...` : prompt),
          again,
        ),
      ),
    );
  }
}
