// The search step by step: selection, expansion, verdict, backpropagation.

import type { Drawing } from "./drawing";
import { button, h, mark, number, on, words } from "./dom";
import type { Step, Tree } from "./types";

export class Replay {
  readonly element = h("div", { class: "replay", role: "group", "aria-label": "replay" });
  private readonly words = h("span", { class: "told", "aria-live": "polite" });
  private readonly slider: HTMLInputElement;
  private at = 0;
  private timer: ReturnType<typeof setInterval> | null = null;
  private readonly came: number[]; // the step that each node came with

  constructor(
    private readonly tree: Tree,
    private readonly steps: Step[],
    private readonly drawing: Drawing,
    close: () => void,
  ) {
    this.came = tree.nodes.map((node) => (node.parent === null ? -1 : steps.length));
    steps.forEach((step, i) => {
      if (step.event === "expansion" && step.node !== undefined) this.came[step.node] = i;
    });
    this.slider = h("input", { type: "range", min: 0, max: steps.length, value: 0, "aria-label": "step" });
    on(this.slider, { input: () => this.go(Number(this.slider.value)) });
    this.element.append(
      button("|‹", "to the beginning", () => this.go(0)),
      button("‹ wave", "to the wave before ( < )", () => this.wave(-1)),
      button("‹", "step back ( , )", () => this.go(this.at - 1)),
      button("▶", "play or pause (p)", () => this.play()),
      button("›", "step ( . )", () => this.go(this.at + 1)),
      button("wave ›", "to the next wave ( > )", () => this.wave(1)),
      this.slider,
      this.words,
      button("close", "back to the finished tree (Esc)", () => {
        this.stop();
        close();
      }),
    );
    this.go(0);
  }

  key(key: string): boolean {
    if (key === ".") this.go(this.at + 1);
    else if (key === ",") this.go(this.at - 1);
    else if (key === ">") this.wave(1);
    else if (key === "<") this.wave(-1);
    else if (key === "p") this.play();
    else return false;
    return true;
  }

  play(): void {
    if (this.timer !== null) this.stop();
    else this.timer = setInterval(() => {
      if (this.at >= this.steps.length) this.stop();
      else this.go(this.at + 1);
    }, 400);
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }

  private wave(by: number): void {
    const now = this.steps[this.at - 1]?.wave ?? -1;
    if (by > 0) {
      let next = this.at;
      while (next < this.steps.length && (this.steps[next]?.wave ?? 0) <= now) next++;
      const wave = this.steps[next]?.wave;
      while (next < this.steps.length && this.steps[next]?.wave === wave) next++;
      this.go(next);
    } else {
      let next = this.at;
      while (next > 0 && this.steps[next - 1]?.wave === now) next--;
      this.go(next);
    }
  }

  // The tree after so many steps.
  go(count: number): void {
    const isFirst = this.drawing.count === this.tree.nodes.length && this.at === 0;
    this.at = Math.min(Math.max(count, 0), this.steps.length);
    this.slider.value = String(this.at);
    this.drawing.showOnly((node) => (this.came[node.id] ?? 0) < this.at);
    this.counts();
    const step = this.steps[this.at - 1];
    this.words.textContent = step ? this.say(step) : "before the first wave";
    const nodes = new Map<number, string>();
    for (const node of step?.path ?? []) nodes.set(node, step?.event ?? "");
    if (step?.node !== undefined) nodes.set(step.node, step.event === "copy" ? "expansion" : step.event === "backtrack" ? "selection" : step.event);
    this.drawing.note(nodes);
    const last = step?.node ?? step?.leaf ?? step?.path?.at(-1);
    if (isFirst) this.drawing.begin();
    if (last !== undefined) this.drawing.select(last);
  }

  private counts(): void {
    const visits = this.tree.nodes.map(() => 0);
    const values = this.tree.nodes.map(() => 0);
    for (const step of this.steps.slice(0, this.at)) {
      if (step.event !== "backpropagation") continue;
      for (const node of step.path ?? []) {
        visits[node]! += 1;
        values[node]! += step.reward ?? 0;
      }
    }
    this.tree.nodes.forEach((node, i) => {
      const n = visits[i] ?? 0;
      this.drawing.tell(node.id, n ? `v ${number((values[i] ?? 0) / n, 2)}  N ${n}` : "N 0");
    });
  }

  private say(step: Step): string {
    const name = (id: number | undefined): string => {
      const node = this.tree.nodes[id ?? 0];
      return node ? `${words(node.kind)} ${node.id}` : "";
    };
    const head = `wave ${step.wave + 1}, step ${this.at} of ${this.steps.length} · ${words(step.event)}: `;
    if (step.event === "selection") {
      const last = step.scores?.at(-1)?.map(([id, score]) => `${name(id)} ${score === null ? "∞" : number(score, 2)}`);
      return `${head}${name(step.path?.at(-1))} is to be expanded${last?.length ? ` (UCB: ${last.join(", ")})` : ""}`;
    }
    if (step.event === "expansion") return `${head}${name(step.node)} is written below ${name(this.tree.nodes[step.node ?? 0]?.parent ?? 0)}`;
    if (step.event === "copy") return `${head}${name(step.node)} was written once more, and merged`;
    if (step.event === "backtrack") return `${head}after the wrong ${name(step.leaf)} back to ${name(step.node)}, to mend it`;
    if (step.event === "verdict") {
      const node = this.tree.nodes[step.node ?? 0];
      return `${head}${mark(node?.verdict ?? "")} ${words(node?.verdict ?? "")}${node?.answer == null ? "" : ` (${node.answer})`}`;
    }
    return `${head}reward ${step.reward} from ${name(step.leaf)} up to the prompt`;
  }
}
