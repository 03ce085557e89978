// One tree: its drawing, the chosen path, and the replay of its search.

import { get } from "./api";
import { type App, go, note, Notebook, type Page, place } from "./app";
import { ChainPanel, LABELS } from "./chain";
import { button, h, number, put, words } from "./dom";
import { Drawing, kindClasses } from "./drawing";
import { Replay } from "./replay";
import type { Step, Tree, Verdict } from "./types";

export async function treePage(app: App, n: number, values: URLSearchParams): Promise<Page> {
  const tree = await get<Tree>(`/api/trees/${n}`);
  const notebook = await Notebook.open(app, n, tree);
  const view = new TreeView(tree, n, notebook, app);
  void get<Record<string, Verdict>>(`/api/trees/${n}/verdicts`).then((verdicts) => {
    tree.verdicts = verdicts;
    view.panel.refresh();
  });
  const asked = values.get("node");
  return {
    element: view.element,
    title: tree.id,
    keys: (event) => view.keys(event),
    opened: () => view.opened(asked === null ? null : Number(asked)),
    saved: (state, of) => { if (notebook.saved(state, of)) view.panel.refresh(); },
  };
}

// A tree in a file of its own: no server, no annotation.
export function exportedPage(tree: Tree): Page {
  const view = new TreeView(tree, null, null, null);
  return { element: view.element, title: tree.id, keys: (event) => view.keys(event), opened: () => view.opened(null) };
}

class TreeView {
  readonly element: HTMLElement;
  readonly panel: ChainPanel;
  private readonly drawing: Drawing;
  private readonly stage = h("div", { class: "stage" });
  private replay: Replay | null = null;

  constructor(private readonly tree: Tree, private readonly n: number | null, notebook: Notebook | null, private readonly app: App | null) {
    const kindClass = kindClasses(tree);
    this.drawing = new Drawing(tree, kindClass, (node) => this.select(node));
    this.panel = new ChainPanel(kindClass, notebook, (node) => this.select(node));
    this.stage.append(this.drawing.element, this.legend(kindClass));
    this.element = h("main", { class: "tree" }, this.head(), h("div", { class: "columns" }, this.stage, this.panel.element));
  }

  opened(node: number | null): void {
    const leaf = this.tree.chains.find(({ node }) => this.tree.nodes[node]?.verdict === "correct") ?? this.tree.chains[0];
    this.select(node !== null && this.tree.nodes[node] ? node : (leaf?.node ?? 0), false);
    this.drawing.begin();
    this.drawing.element.focus({ preventScroll: true });
  }

  private select(node: number, isNoted = true): void {
    this.drawing.select(node);
    this.panel.show(this.tree, node);
    this.panel.element.scrollTop = 0;
    if (isNoted && this.n !== null) note(place(`tree/${this.n}`, { node }));
  }

  private head(): HTMLElement {
    const { tree, n } = this;
    const models = [...new Set(Object.values(tree.models))].join(", ");
    const usage = Object.entries(tree.usage).map(([name, count]) => `${words(name)} ${number(count)}`);
    const facts = [tree.task, `pattern ${tree.pattern}`, words(tree.status), models, `${tree.nodes.length} nodes`, ...usage];
    const head = h("div", { class: "head" }, h("h2", {}, tree.id), h("span", { class: "facts" }, facts.filter(Boolean).join(" · ")));
    if (n !== null) {
      put(
        head,
        h("span", { class: "actions" },
          button("‹", "tree before ( [ )", () => this.other(-1)),
          button("›", "next tree ( ] )", () => this.other(1)),
          button("replay", "step through the search (r)", () => void this.startReplay()),
          this.app?.session.has_pairs ? h("a", { href: place("pairs", { tree: tree.id }) }, "pairs") : null,
          h("a", { href: `/api/trees/${n}/page`, download: `tree-${n}.html` }, "save as a file")),
      );
    }
    return head;
  }

  private legend(kindClass: (kind: string) => string): HTMLElement {
    const kinds = [...new Set(this.tree.nodes.map((node) => node.kind))];
    return h("div", { class: "legend" },
      ...kinds.map((kind) => h("span", { class: `key ${kindClass(kind)}` }, words(kind))),
      button("+", "larger ( + )", () => this.drawing.zoom(1.25)),
      button("−", "smaller ( - )", () => this.drawing.zoom(0.8)),
      button("all", "the whole tree ( 0 )", () => this.drawing.fit()),
      button("fold", "fold the tree (f)", () => this.drawing.collapseAll(true)),
      button("unfold", "unfold the tree (u in replay: undo elsewhere)", () => this.drawing.collapseAll(false)));
  }

  private other(by: number): void {
    const { n, app } = this;
    if (n === null || app === null) return;
    if (n + by >= 0 && n + by < app.session.total.trees) go(place(`tree/${n + by}`));
  }

  private async startReplay(): Promise<void> {
    if (this.replay !== null || this.n === null) return;
    const bar = h("div", { class: "replay" }, "searching once more …");
    this.stage.append(bar);
    try {
      const steps = await get<Step[]>(`/api/trees/${this.n}/steps`);
      this.replay = new Replay(this.tree, steps, this.drawing, () => this.endReplay());
      bar.replaceWith(this.replay.element);
    } catch (error) {
      bar.replaceChildren(String((error as Error).message), button("close", "close", () => bar.remove()));
    }
  }

  private endReplay(): void {
    this.replay?.stop();
    this.replay?.element.remove();
    this.replay = null;
    this.drawing.note(new Map());
    this.drawing.showOnly(null);
  }

  private nextChain(by: number): void {
    const leaves = this.tree.chains.map((chain) => chain.node);
    const at = leaves.findIndex((leaf) => leaf >= this.drawing.selected);
    const isThere = leaves[at] === this.drawing.selected;
    const next = at < 0 ? (by > 0 ? leaves.length : leaves.length - 1) : by > 0 && !isThere ? at : at + by;
    const node = leaves[next];
    if (node !== undefined) this.select(node);
  }

  keys(event: KeyboardEvent): boolean {
    const { key } = event;
    if (this.replay !== null) {
      if (key === "Escape") {
        this.endReplay();
        return true;
      }
      if (this.replay.key(key)) return true;
    }
    if (key.startsWith("Arrow") && !event.shiftKey) {
      const node = this.drawing.step(key);
      if (node !== null) this.select(node);
    } else if (key.startsWith("Arrow")) {
      this.drawing.pan(key === "ArrowLeft" ? 80 : key === "ArrowRight" ? -80 : 0, key === "ArrowUp" ? 80 : key === "ArrowDown" ? -80 : 0);
    } else if (key === " " || key === "Enter") this.drawing.toggle(this.drawing.selected);
    else if (key === "+" || key === "=") this.drawing.zoom(1.25);
    else if (key === "-") this.drawing.zoom(0.8);
    else if (key === "0") this.drawing.fit();
    else if (key === "f") this.drawing.collapseAll(true);
    else if (key === "n") this.nextChain(1);
    else if (key === "b") this.nextChain(-1);
    else if (key === "]") this.other(1);
    else if (key === "[") this.other(-1);
    else if (key === "r") void this.startReplay();
    else if (key === "m") {
      this.panel.mathematics = !this.panel.mathematics;
      this.panel.refresh();
    } else if (key === "e") this.panel.edit();
    else if (key === "u" && this.app) this.app.saver.undo(this.app.annotator());
    else {
      const label = LABELS.find(([, own]) => own === key);
      if (!label) return false;
      this.panel.label(label[0]);
    }
    return true;
  }
}
