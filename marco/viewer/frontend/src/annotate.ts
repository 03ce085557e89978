// Chain after chain, with nothing but what is needed to judge it.

import { get, Refused } from "./api";
import { type App, note, Notebook, type Page, place } from "./app";
import { ChainPanel, LABELS } from "./chain";
import { button, h, on } from "./dom";
import { kindClasses } from "./drawing";
import { filterOf } from "./list";
import type { Outcome } from "./saver";
import type { State, Tree, Verdict } from "./types";

interface Place {
  n: number;
  node: number;
}

export async function annotatePage(app: App, values: URLSearchParams): Promise<Page> {
  const page = new Annotate(app, values);
  const [n, node] = [values.get("n"), values.get("node")];
  if (n !== null && node !== null) await page.show({ n: Number(n), node: Number(node) });
  else await page.move(false);
  return page;
}

class Annotate implements Page {
  readonly element = h("main", { class: "annotate" });
  readonly title = "annotate";
  private readonly filter: Record<string, string>;
  private readonly where = h("h2");
  private readonly ended = h("p", { class: "ended", role: "status" });
  private readonly body = h("div", { class: "body" });
  private readonly todo: HTMLInputElement;
  private panel: ChainPanel | null = null;
  private notebook: Notebook | null = null;
  private tree: Tree | null = null;
  private at: Place | null = null;
  private isMoving = false;

  constructor(private readonly app: App, values: URLSearchParams) {
    this.filter = filterOf(values);
    this.todo = h("input", { type: "checkbox", checked: values.get("todo") === "true" });
    on(this.todo, { change: () => this.noted() });
    this.element.append(
      h("div", { class: "head" },
        this.where,
        h("span", { class: "actions" },
          button("‹ back (←)", "the chain before", () => void this.move(true)),
          button("next (→)", "the next chain", () => void this.move(false)),
          button("undo (u)", "take back what you did last", () => app.saver.undo(app.annotator())),
          h("label", {}, this.todo, " without a label only"),
          h("a", { href: "/api/annotations/export", download: "annotations.jsonl" }, "export"))),
      this.ended,
      this.body,
    );
  }

  async show(at: Place): Promise<void> {
    if (this.at?.n !== at.n || this.tree === null) {
      const tree = await get<Tree>(`/api/trees/${at.n}`);
      this.notebook = await Notebook.open(this.app, at.n, tree);
      this.tree = tree;
      void get<Record<string, Verdict>>(`/api/trees/${at.n}/verdicts`).then((verdicts) => {
        tree.verdicts = verdicts;
        this.panel?.refresh();
      });
      const notebook = this.notebook;
      this.panel = new ChainPanel(kindClasses(tree), {
        state: (node) => notebook.state(node),
        save: (node, label, text) => {
          notebook.save(node, label, text);
          if (label !== null) void this.move(false);
        },
      });
      this.body.replaceChildren(this.panel.element);
    }
    this.at = at;
    this.where.replaceChildren(h("a", { href: place(`tree/${at.n}`, { node: at.node }) }, `${this.tree.id}, chain ${at.node}`));
    this.ended.textContent = "";
    this.panel?.show(this.tree, at.node);
    this.element.scrollTop = 0;
    this.noted();
  }

  private noted(): void {
    note(place("annotate", { ...this.filter, todo: this.todo.checked || undefined, n: this.at?.n, node: this.at?.node }));
  }

  // To the next chain, or the one before; back goes through all of them.
  async move(backwards: boolean): Promise<void> {
    if (this.isMoving || this.panel?.isEditing) return;
    this.isMoving = true;
    try {
      let after = this.at ?? { n: -1, node: -1 };
      for (;;) {
        const todo = this.todo.checked && !backwards;
        const found = await get<{ chain: Place | null; after?: Place | null }>("/api/annotations/next", {
          ...this.filter, annotator: this.app.annotator(), n: after.n, node: after.node, backwards, todo,
        });
        if (found.chain) return await this.show(found.chain);
        if (!found.after) break;
        after = found.after;
      }
      this.ended.textContent = backwards ? "This is the first chain." : "There are no more chains.";
    } catch (error) {
      if (error instanceof Refused) throw error;
      this.ended.textContent = "The server does not answer; what you labelled is kept here until it does. Try again.";
    } finally {
      this.isMoving = false;
    }
  }

  saved(state: State | null, n: number | null, what: Outcome): void {
    if (this.notebook?.saved(state, n)) this.panel?.refresh();
    if (what === "undo" && state !== null && n !== null) void this.show({ n, node: state.node });
  }

  keys(event: KeyboardEvent): boolean {
    const { key } = event;
    const label = LABELS.find(([, own]) => own === key);
    if (label) this.panel?.label(label[0]);
    else if (key === "ArrowRight") void this.move(false);
    else if (key === "ArrowLeft") void this.move(true);
    else if (key === "ArrowDown") this.element.scrollBy(0, 80);
    else if (key === "ArrowUp") this.element.scrollBy(0, -80);
    else if (key === "u") this.app.saver.undo(this.app.annotator());
    else if (key === "e") this.panel?.edit();
    else if (key === "m" && this.panel) {
      this.panel.mathematics = !this.panel.mathematics;
      this.panel.refresh();
    } else return false;
    return true;
  }
}
