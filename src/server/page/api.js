// Requests to the server, and small helpers of the page.

/** Asks for JSON; errors are the server's own words. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer");
  }
  const text = await answer.text();
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(`the server's answer cannot be read (${answer.status})`);
  }
  if (!answer.ok) {
    const error = new Error(value?.error?.message ?? `the server refuses (${answer.status})`);
    error.field = value?.error?.field;
    throw error;
  }
  return value;
}

/** Sends JSON. */
export function send(path, value) {
  const headers = { "content-type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(value) });
}

/** An element with attributes and children; texts are texts, never HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A file as base64. */
export function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

/** Shows a picture large. */
export function view(url, alt, caption) {
  const viewer = document.getElementById("viewer");
  const image = viewer.querySelector("img");
  image.src = url;
  image.alt = alt;
  viewer.querySelector(".caption").textContent = caption;
  viewer.showModal();
}
