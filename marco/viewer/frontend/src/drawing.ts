// The nodes of a tree as a drawing: tidy, from left to right, in SVG.

import { hierarchy, tree as tidy, type HierarchyPointNode } from "d3-hierarchy";
import { h, mark, number, svg, verdictClass, words } from "./dom";
import type { Tree, TreeNode } from "./types";

const WIDTH = 124; // of a node, in pixels at scale 1
const HEIGHT = 34;
const COLUMN = 156;
const ROW = 42;
const FAR = 0.45; // below this scale texts are too small to be read, and are left out
const READABLE = 0.55; // the scale at which a tree is opened at least
const PALETTE = 8; // colours of kinds in viewer.css

type Place = HierarchyPointNode<TreeNode>;

export function kindClasses(tree: Tree): (kind: string) => string {
  const kinds = [...new Set(tree.nodes.slice(1).map((node) => node.kind))].sort();
  return (kind) => (kind === "prompt" ? "kind-prompt" : `kind-${kinds.indexOf(kind) % PALETTE}`);
}

export class Drawing {
  readonly element = h("div", { class: "drawing", tabindex: 0, role: "tree", "aria-label": "tree" });
  // A layer of its own, which is moved as it was painted: nothing is painted again while it is dragged.
  private readonly layer = svg("svg", { class: "layer" });
  private readonly links = svg("path", { class: "links" });
  private readonly way = svg("path", { class: "way" });
  private readonly boxes = svg("g");
  private readonly collapsed = new Set<number>();
  private readonly children: TreeNode[][];
  private readonly below: number[];
  private places = new Map<number, Place>();
  private drawn = new Map<number, SVGGElement>();
  private hidden: (node: TreeNode) => boolean = () => false;
  private size = { width: 0, height: 0 }; // kept: to ask for it has all nodes laid out once more
  private scale = 1;
  private x = 0;
  private y = 0;
  selected = 0;

  constructor(
    private readonly tree: Tree,
    private readonly kindClass: (kind: string) => string,
    private readonly chosen: (node: number) => void,
  ) {
    this.children = tree.nodes.map(() => []);
    for (const node of tree.nodes) if (node.parent !== null) this.children[node.parent]?.push(node);
    this.below = tree.nodes.map(() => 0);
    for (const node of [...tree.nodes].reverse()) {
      if (node.parent !== null) this.below[node.parent]! += 1 + (this.below[node.id] ?? 0);
    }
    this.layer.append(this.links, this.way, this.boxes);
    this.element.append(this.layer);
    this.listen();
    new ResizeObserver(([entry]) => {
      if (entry) this.size = entry.contentRect;
    }).observe(this.element);
  }

  // Layout

  draw(): void {
    const shown = (node: TreeNode): TreeNode[] =>
      this.collapsed.has(node.id) ? [] : (this.children[node.id] ?? []).filter((child) => !this.hidden(child));
    const root = hierarchy(this.tree.nodes[0]!, shown);
    const placed = tidy<TreeNode>().nodeSize([ROW, COLUMN]).separation((a, b) => (a.parent === b.parent ? 1 : 1.3))(root);
    this.places = new Map();
    this.drawn = new Map();
    const lines: string[] = [];
    const boxes = document.createDocumentFragment();
    placed.each((place) => {
      this.places.set(place.data.id, place);
      if (place.parent) lines.push(line(place.parent, place));
      boxes.append(this.box(place));
    });
    this.links.setAttribute("d", lines.join(""));
    this.boxes.replaceChildren(boxes);
    this.mark();
  }

  private box(place: Place): SVGGElement {
    const node = place.data;
    const classes = `node ${this.kindClass(node.kind)} ${verdictClass(node.verdict)}`;
    const label = node.verdict === null ? words(node.kind) : `${mark(node.verdict)} ${node.answer ?? words(node.verdict)}`;
    const facts = node.visits ? `v ${number(node.value / node.visits, 2)}  N ${node.visits}` : "N 0";
    const box = svg(
      "g",
      {
        class: classes,
        transform: `translate(${place.y} ${place.x})`,
        "data-node": node.id,
        role: "treeitem",
        "aria-label": `${words(node.kind)} ${node.id}${node.verdict ? `, ${words(node.verdict)}` : ""}`,
      },
      svg("rect", { x: 0, y: -HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: 4 }),
      svg("text", { x: 8, y: -3 }, cut(label, 17)),
      svg("text", { x: 8, y: 11, class: "small" }, `${facts}  ${node.ucb === null ? "" : `U ${number(node.ucb, 2)}`}`),
    );
    const count = this.below[node.id] ?? 0;
    if (count) {
      const isClosed = this.collapsed.has(node.id);
      box.append(
        svg("circle", { class: "toggle", cx: WIDTH, cy: 0, r: 7 }),
        svg("text", { class: `toggle-text ${isClosed ? "is-closed" : ""}`, x: isClosed ? WIDTH + 10 : WIDTH, y: 4 }, isClosed ? `+${count}` : "−"),
      );
    }
    this.drawn.set(node.id, box);
    return box;
  }

  // Which nodes there are at all: those that a replay has come to.
  showOnly(isThere: ((node: TreeNode) => boolean) | null): void {
    this.hidden = isThere ? (node) => !isThere(node) : () => false;
    this.draw();
  }

  get count(): number {
    return this.places.size;
  }

  toggle(node: number): void {
    if (!this.below[node]) return;
    if (!this.collapsed.delete(node)) this.collapsed.add(node);
    this.draw();
  }

  collapseAll(isClosed: boolean): void {
    this.collapsed.clear();
    if (isClosed) for (const child of this.children[0] ?? []) if (this.below[child.id]) this.collapsed.add(child.id);
    this.draw();
    this.fit();
  }

  // Selection

  select(node: number, isFollowed = true): void {
    this.selected = node;
    let isOpened = false;
    for (let at = this.tree.nodes[node]?.parent ?? null; at !== null; at = this.tree.nodes[at]?.parent ?? null) {
      isOpened = this.collapsed.delete(at) || isOpened;
    }
    if (isOpened) this.draw();
    else if (this.places.size) this.mark();
    if (isFollowed) this.follow();
  }

  private mark(): void {
    this.boxes.querySelectorAll(".is-on").forEach((box) => box.classList.remove("is-on", "is-selected"));
    const lines: string[] = [];
    for (let at = this.places.get(this.selected); at; at = at.parent ?? undefined) {
      this.drawn.get(at.data.id)?.classList.add("is-on");
      if (at.parent) lines.push(line(at.parent, at));
    }
    this.drawn.get(this.selected)?.classList.add("is-selected");
    this.way.setAttribute("d", lines.join(""));
  }

  // Marks of a replay's step: replaces those of the step before.
  note(nodes: Map<number, string>): void {
    this.boxes.querySelectorAll(".is-noted").forEach((box) => {
      box.classList.remove("is-noted", "step-selection", "step-expansion", "step-verdict", "step-backpropagation");
    });
    for (const [node, kind] of nodes) this.drawn.get(node)?.classList.add("is-noted", `step-${kind}`);
  }

  // A node's facts as a replay has them by now.
  tell(node: number, facts: string): void {
    const text = this.drawn.get(node)?.querySelector(".small");
    if (text) text.textContent = facts;
  }

  // Keyboard: to the parent, a child, a sibling (or a cousin where there is none).
  step(key: string): number | null {
    const at = this.places.get(this.selected);
    if (!at) return 0;
    if (key === "ArrowLeft") return at.parent?.data.id ?? null;
    if (key === "ArrowRight") return at.children?.[0]?.data.id ?? null;
    const column = [...this.places.values()].filter((place) => place.depth === at.depth).sort((a, b) => a.x - b.x);
    const next = column.indexOf(at) + (key === "ArrowDown" ? 1 : -1);
    return column[next]?.data.id ?? null;
  }

  // View

  private move(): void {
    this.layer.style.transform = `translate3d(${this.x}px, ${this.y}px, 0) scale(${this.scale})`;
    this.element.classList.toggle("is-far", this.scale < FAR);
  }

  fit(): void {
    const { width, height } = this.size;
    let [top, bottom, right] = [0, 0, 0];
    for (const { x, y } of this.places.values()) {
      [top, bottom, right] = [Math.min(top, x), Math.max(bottom, x), Math.max(right, y)];
    }
    [top, bottom, right] = [top - ROW, bottom + ROW, right + WIDTH];
    this.scale = Math.min(1, width / (right + 40), height / (bottom - top));
    this.x = 20;
    this.y = height / 2 - (this.scale * (top + bottom)) / 2;
    this.move();
  }

  // Readable, with the selected node in view, where all of the tree would be too small. Before this
  // nothing is drawn.
  begin(): void {
    if (!this.places.size) {
      this.size = this.element.getBoundingClientRect();
      this.draw();
    }
    this.fit();
    if (this.scale >= READABLE) return;
    this.zoom(READABLE / this.scale);
    this.x = 20;
    this.follow(true);
  }

  follow(isCentred = false): void {
    const place = this.places.get(this.selected);
    const { width, height } = this.size;
    if (!place || !width) return;
    const [left, top] = [this.x + place.y * this.scale, this.y + place.x * this.scale];
    const right = left + WIDTH * this.scale;
    if (left < 10 || right > width - 10) this.x += Math.min(width - 30, width / 2 + (right - left) / 2) - right;
    if (isCentred || top < 30 || top > height - 30) this.y += height / 2 - top;
    this.move();
  }

  zoom(factor: number, at?: { x: number; y: number }): void {
    const { width, height } = this.size;
    const centre = at ?? { x: width / 2, y: height / 2 };
    const scale = Math.min(2, Math.max(0.02, this.scale * factor));
    this.x = centre.x - ((centre.x - this.x) * scale) / this.scale;
    this.y = centre.y - ((centre.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.move();
  }

  pan(x: number, y: number): void {
    this.x += x;
    this.y += y;
    this.move();
  }

  private listen(): void {
    let from: { x: number; y: number; isMoved: boolean } | null = null;
    this.element.addEventListener("pointerdown", (event) => {
      if (event.button === 0) from = { x: event.clientX, y: event.clientY, isMoved: false };
    });
    this.element.addEventListener("pointermove", (event) => {
      if (!from || !(event.buttons & 1)) return;
      const [x, y] = [event.clientX - from.x, event.clientY - from.y];
      if (!from.isMoved && Math.hypot(x, y) < 4) return;
      if (!from.isMoved) this.element.setPointerCapture(event.pointerId);
      this.pan(x, y);
      from = { x: event.clientX, y: event.clientY, isMoved: true };
    });
    this.element.addEventListener("pointerup", (event) => {
      const wasMoved = from?.isMoved;
      from = null;
      if (wasMoved) return;
      const target = event.target as Element;
      const box = target.closest("[data-node]");
      if (!box) return;
      const node = Number(box.getAttribute("data-node"));
      if (target.classList.contains("toggle") || target.classList.contains("toggle-text")) this.toggle(node);
      else this.chosen(node);
    });
    this.element.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const { left, top } = this.element.getBoundingClientRect();
        if (event.ctrlKey || !event.shiftKey) {
          this.zoom(Math.exp(-event.deltaY / 400), { x: event.clientX - left, y: event.clientY - top });
        } else this.pan(-event.deltaX - event.deltaY, 0);
      },
      { passive: false },
    );
  }
}

function line(from: Place, to: Place): string {
  const [x, y] = [from.y + WIDTH, to.y];
  const middle = (x + y) / 2;
  return `M${x} ${from.x}C${middle} ${from.x} ${middle} ${to.x} ${y} ${to.x}`;
}

function cut(text: string, length: number): string {
  const letters = [...text];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : text;
}
