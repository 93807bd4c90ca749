// As much of a browser as the services' pages use. What a page shows is text here too: `shownTexts()` is all of it.
// Setting an attribute makes text of whatever it is set to, as in a browser: of an absent value the word "undefined".
"use strict";
const ATTRIBUTES = ["ariaLabel", "className", "id", "placeholder", "title", "value"];

class Element {
  constructor(tag) {
    Object.assign(this, { tag, nodes: [], attributes: {}, dataset: {}, style: {}, status: { value: "" } });
    this.classList = { add() {}, remove() {}, contains: () => false };
  }
  append(...nodes) {
    this.nodes.push(...nodes.map(node => node instanceof Element ? node : String(node)));
  }
  replaceChildren(...nodes) {
    this.nodes = [];
    this.append(...nodes);
  }
  get textContent() { return this.texts().join(" "); }
  set textContent(text) { this.nodes = text === null || text === undefined ? [] : [String(text)]; }
  texts() {
    const inside = this.nodes.flatMap(node => node instanceof Element ? node.texts() : [node]);
    return [...Object.values(this.attributes), ...Object.values(this.style).map(String), ...inside];
  }
  querySelector() { return null; }
  focus() {}
}
for (const name of ATTRIBUTES) Object.defineProperty(Element.prototype, name, {
  get() { return this.attributes[name] ?? ""; },
  set(value) { this.attributes[name] = String(value); },
});

const elements = new Map();
globalThis.document = {
  hidden: false,
  activeElement: null,
  createElement: tag => new Element(tag),
  getElementById: id => elements.get(id) ?? elements.set(id, new Element(id)).get(id),
};
globalThis.location = { hash: globalThis.HASH, pathname: "/" };
globalThis.history = { replaceState() {} };
globalThis.setTimeout = () => 1;
globalThis.clearTimeout = () => {};
globalThis.CSS = { escape: text => text };
globalThis.AbortSignal = { timeout: () => null };
globalThis.FormData = class { *[Symbol.iterator]() {} };
globalThis.URLSearchParams = class { toString() { return "query"; } };
globalThis.Intl = { NumberFormat: class {
  constructor(_, { currency }) { if (!/^[A-Z]{3}$/.test(currency)) throw new TypeError("no currency"); }
  format(amount) { return Number(amount).toFixed(2); }
} };
// The answers, by what an address begins with; the longest counts.
globalThis.fetch = async address => {
  const known = Object.keys(ANSWERS).filter(start => address.startsWith(start)).sort((a, b) => b.length - a.length)[0];
  return { ok: known !== undefined, status: known === undefined ? 404 : 200, json: async () => ANSWERS[known] };
};
globalThis.shownTexts = () => JSON.stringify([...elements.values()].flatMap(element => element.texts()));
