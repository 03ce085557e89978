// What the pages share: the session, where to go, and the annotator's states of one tree.

import { get, query } from "./api";
import type { Outcome, Saver } from "./saver";
import type { Label, Session, State, Tree } from "./types";

export interface Page {
  element: HTMLElement;
  title: string;
  keys?: (event: KeyboardEvent) => boolean; // whether the key meant something
  opened?: () => void; // its element is in the document
  saved?: (state: State | null, n: number | null, what: Outcome) => void;
}

export interface App {
  session: Session;
  saver: Saver;
  annotator: () => string;
  progressed: () => void;
}

export function place(page: string, values: Record<string, string | number | boolean | undefined> = {}): string {
  const text = query(values);
  return `#/${page}${text ? `?${text}` : ""}`;
}

export function go(hash: string, isReplaced = false): void {
  if (!isReplaced) location.hash = hash;
  else {
    history.replaceState(null, "", hash);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}

// The hash as it would be, without the page being drawn anew.
export function note(hash: string): void {
  history.replaceState(null, "", hash);
}

// What an annotator has said of the chains of one tree.
export class Notebook {
  private states = new Map<number, State>();

  private constructor(private readonly app: App, readonly n: number) {}

  static async open(app: App, n: number, tree: Tree): Promise<Notebook> {
    const own = new Notebook(app, n);
    const states = await get<State[]>("/api/annotations", { annotator: app.annotator(), tree: tree.id });
    for (const state of states) own.states.set(state.node, state);
    return own;
  }

  state(node: number): State | undefined {
    return this.states.get(node);
  }

  // Shown at once; `saved` tells what the server made of it.
  save(node: number, label: Label | null, text: string | null): void {
    const seen = this.states.get(node);
    this.app.saver.save(this.app.annotator(), this.n, node, label, text, seen?.seq ?? null);
    this.states.set(node, { seq: seen?.seq ?? 0, tree: "", node, label, text });
  }

  saved(state: State | null, n: number | null): boolean {
    if (state === null || n !== this.n) return false;
    this.states.set(state.node, state);
    return true;
  }
}
