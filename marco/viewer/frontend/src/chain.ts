// One finished chain: its whole text, its verdict and why, and what the annotator says of it.

import { badge, button, h, number, on, put, verdictClass, words } from "./dom";
import { rendered } from "./text";
import type { Chain, Label, State, Tree, TreeNode } from "./types";

export const LABELS: [Label, string][] = [
  ["correct", "c"],
  ["wrong", "x"],
  ["discard", "d"],
];

export function pathTo(tree: Tree, node: number): TreeNode[] {
  const path: TreeNode[] = [];
  for (let at = tree.nodes[node]; at !== undefined && at.parent !== null; at = tree.nodes[at.parent]) path.push(at);
  return path.reverse();
}

export interface Annotating {
  state: (node: number) => State | undefined;
  save: (node: number, label: Label | null, text: string | null) => void;
}

export class ChainPanel {
  readonly element = h("section", { class: "chain", "aria-label": "chain" });
  mathematics = true;
  private tree: Tree | null = null;
  private node = 0;
  private editor: HTMLTextAreaElement | null = null;

  constructor(
    private readonly kindClass: (kind: string) => string,
    private readonly annotating: Annotating | null,
    private readonly chosen: (node: number) => void = () => {},
  ) {}

  show(tree: Tree, node: number): void {
    this.tree = tree;
    this.node = node;
    this.editor = null;
    this.draw();
  }

  get chain(): Chain | undefined {
    return this.tree?.chains.find((chain) => chain.node === this.node);
  }

  // Another state of this chain; a text that is being edited stays.
  refresh(): void {
    if (this.editor === null) this.draw();
    else this.element.querySelector(".annotation")?.replaceWith(this.annotation());
  }

  draw(): void {
    const { tree, node } = this;
    if (tree === null) return;
    const path = pathTo(tree, node);
    const leaf = tree.nodes[node];
    this.element.replaceChildren();
    put(
      this.element,
      h("div", { class: "gold" }, h("b", {}, "gold answer "), this.text(String(tree.gold))),
      leaf?.verdict ? this.verdict(leaf) : null,
      this.annotating && this.chain ? this.annotation() : null,
      h("div", { class: "problem" }, h("h3", {}, "problem"), h("pre", {}, this.text(tree.problem))),
    );
    const edited = this.annotating?.state(node)?.text;
    if (edited != null) put(this.element, h("div", { class: "edited" }, h("h3", {}, "edited text"), h("pre", {}, this.text(edited))));
    for (const passed of path) put(this.element, this.thought(passed));
  }

  private verdict(leaf: TreeNode): HTMLElement {
    const verdict = this.tree?.verdicts?.[String(leaf.id)];
    const chain = this.chain;
    return h(
      "div",
      { class: "verdict" },
      badge(leaf.verdict ?? "", leaf.answer),
      verdict?.why == null ? null : h("span", { class: "why" }, `why: ${verdict.why}`),
      chain ? h("span", { class: "facts" }, `${number(chain.tokens)} tokens`) : h("span", { class: "facts" }, "the same text as an earlier chain"),
      ...(verdict?.error_classes ?? []).map((name) => h("span", { class: "error-class" }, words(name))),
    );
  }

  private thought(node: TreeNode): HTMLElement {
    const mean = node.visits ? number(node.value / node.visits, 2) : "–";
    const facts = [
      node.model ?? "prefix only",
      `${node.tokens} tokens`,
      `value ${mean} of ${node.visits} visits`,
      `UCB ${node.ucb === null ? (node.visits ? "–" : "∞") : number(node.ucb, 2)}`,
      node.copies > 1 ? `${node.copies} copies` : "",
      node.finish === "length" ? "cut off" : "",
    ];
    const head = button(words(node.kind), "show this node in the tree", () => this.chosen(node.id), "kind");
    return h(
      "article",
      { class: `thought ${this.kindClass(node.kind)}` },
      h("header", {}, head, h("small", {}, facts.filter(Boolean).join(" · "))),
      h("pre", {}, this.text(node.text)),
    );
  }

  private text(text: string): DocumentFragment {
    return rendered(text, this.mathematics);
  }

  // Annotation

  private annotation(): HTMLElement {
    const state = this.annotating?.state(this.node);
    const bar = h("div", { class: "annotation", role: "group", "aria-label": "annotation" });
    for (const [label, key] of LABELS) {
      const isOn = state?.label === label;
      const own = button(`${label} (${key})`, `label this chain ${label}`, () => this.label(label), `label ${verdictClass(label)}`);
      own.setAttribute("aria-pressed", String(isOn));
      put(bar, own);
    }
    put(bar, button("edit (e)", "edit the text of this chain", () => this.edit()));
    if (state?.text != null) put(bar, h("span", { class: "facts" }, "edited"));
    return bar;
  }

  label(label: Label): void {
    if (this.annotating === null || !this.chain) return;
    if (this.editor !== null) return;
    const state = this.annotating.state(this.node);
    this.annotating.save(this.node, label, label === "discard" ? null : (state?.text ?? null));
    this.refresh(); // at once, whenever the server answers
  }

  edit(): void {
    const { tree, annotating, node } = this;
    if (tree === null || annotating === null || !this.chain || this.editor !== null) return;
    const original = pathTo(tree, node).map((passed) => passed.text).join("");
    const area = h("textarea", { "aria-label": "text of the chain", spellcheck: "false" });
    area.value = annotating.state(node)?.text ?? original;
    this.editor = area;
    const done = (label: Label): void => {
      this.editor = null;
      annotating.save(node, label, area.value === original ? null : area.value);
      this.draw();
    };
    const cancel = (): void => {
      this.editor = null;
      this.draw();
    };
    on(area, {
      keydown: (event) => {
        if (event.key === "Escape") cancel();
        else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done("correct");
        else return;
        event.preventDefault();
      },
    });
    const box = h(
      "div",
      { class: "editor" },
      area,
      h(
        "div",
        { class: "annotation" },
        button("save as correct (Ctrl+Enter)", "keep the text, and label the chain correct", () => done("correct"), "label is-correct"),
        button("save as wrong", "keep the text, and label the chain wrong", () => done("wrong"), "label is-wrong"),
        button("original text", "put the text back as it was", () => { area.value = original; }),
        button("cancel (Esc)", "leave the chain as it is", cancel),
      ),
    );
    this.element.querySelector(".annotation")?.replaceWith(box);
    area.focus();
  }

  get isEditing(): boolean {
    return this.editor !== null;
  }
}
