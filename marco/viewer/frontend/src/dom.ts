// Elements made by hand: what comes from a tree can only ever become a text node.

type Child = Node | string | number | null | false;
type Listeners = { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | null> & { on?: never } = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  put(element, ...children);
  return element;
}

export function put(element: Element, ...children: Child[]): void {
  for (const child of children) {
    if (child !== null && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

export function on<E extends HTMLElement>(element: E, listeners: Listeners): E {
  for (const [name, listener] of Object.entries(listeners)) {
    element.addEventListener(name, listener as EventListener);
  }
  return element;
}

export function button(text: string, title: string, act: () => void, kind = ""): HTMLButtonElement {
  return on(h("button", { type: "button", title, class: kind }, text), { click: act });
}

const SVG = "http://www.w3.org/2000/svg";

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number> = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag) as SVGElementTagNameMap[K];
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  put(element, ...children);
  return element;
}

export function words(name: string): string {
  return name.replaceAll("_", " ");
}

export function number(value: number | null, digits = 0): string {
  if (value === null || !Number.isFinite(value)) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const MARKS: Record<string, string> = { correct: "✓", wrong: "✗", no_answer: "∅", discard: "⌫" };

export function mark(verdict: string): string {
  return MARKS[verdict] ?? "?";
}

// The class of a verdict or label: only ours have one, whatever a file says.
export function verdictClass(verdict: string | null): string {
  return verdict !== null && verdict in MARKS ? `is-${verdict}` : "";
}

export function badge(verdict: string, answer: string | null = null): HTMLElement {
  const text = `${mark(verdict)} ${words(verdict)}${answer === null ? "" : `: ${answer}`}`;
  return h("span", { class: `badge ${verdictClass(verdict)}` }, text);
}
