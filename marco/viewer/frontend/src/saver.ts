// Saves go out one after the other, and stay in this browser until the server has them on disk.

import { Refused, post, recall, remember, remembered } from "./api";
import type { Label, State } from "./types";

interface Item {
  path: "save" | "undo";
  body: { request: string; annotator: string; tab: string; n?: number; node?: number; label?: Label | null; text?: string | null; seen?: number | null };
}

export type Outcome = "save" | "undo" | "conflict";

const AGAIN_MS = 1000;
const OUTBOX = "outbox.";

export class Saver {
  private readonly tab: string = thisTab();
  private readonly outbox = OUTBOX + crypto.randomUUID(); // a copied tab has its original's id
  private readonly items: Item[];
  private readonly latest = new Map<string, number>();
  private isSending = false;
  told: (text: string, isGood: boolean) => void = () => {};
  saved: (state: State | null, n: number | null, what: Outcome) => void = () => {};

  constructor() {
    this.items = waiting(); // also those of other tabs; what is sent twice counts once
    this.keep();
  }

  save(annotator: string, n: number, node: number, label: Label | null, text: string | null, seen: number | null): void {
    this.add({ path: "save", body: { request: crypto.randomUUID(), annotator, tab: this.tab, n, node, label, text, seen } });
  }

  undo(annotator: string): void {
    this.add({ path: "undo", body: { request: crypto.randomUUID(), annotator, tab: this.tab } });
  }

  get pending(): number {
    return this.items.length;
  }

  private add(item: Item): void {
    this.items.push(item);
    this.keep();
    void this.send();
  }

  private keep(): void {
    remember(this.outbox, this.items.length ? JSON.stringify(this.items) : null);
  }

  async send(): Promise<void> {
    if (this.isSending) return;
    this.isSending = true;
    try {
      while (this.items[0] !== undefined) {
        this.told("saving …", true);
        if (!(await this.sendOne(this.items[0]))) return;
        this.items.shift();
        this.keep();
      }
    } finally {
      this.isSending = false;
    }
  }

  // False where it is to be tried again later.
  private async sendOne({ path, body }: Item): Promise<boolean> {
    const key = `${body.annotator}/${body.n}/${body.node}`;
    try {
      const seen = this.latest.get(key) ?? body.seen;
      const answer = await post<State | { state: State | null; n: number | null }>(
        `/api/annotations/${path}`, path === "save" ? { ...body, seen } : body,
      );
      const [state, n] = "state" in answer ? [answer.state, answer.n] : [answer, body.n ?? null];
      if (state) this.latest.set(`${body.annotator}/${n}/${state.node}`, state.seq);
      this.told(path === "undo" && state === null ? "nothing to undo" : "saved", true);
      this.saved(state, n, path);
      return true;
    } catch (error) {
      return this.failed(error, key, body.n ?? null);
    }
  }

  private failed(error: unknown, key: string, n: number | null): boolean {
    const status = error instanceof Refused ? error.status : 0;
    if (status === 409) {
      const { state } = (error as Refused).body as { state: State | null };
      if (state) this.latest.set(key, state.seq);
      this.told("not saved: it was changed in another tab, and is shown as it is now", false);
      this.saved(state, n, "conflict");
      return true;
    }
    if (status >= 400 && status < 500 && status !== 403) {
      this.told(`not saved: ${(error as Error).message}`, false);
      return true;
    }
    const reason = status === 403 ? (error as Error).message : "the server does not answer; it is tried again";
    this.told(`not saved yet: ${reason}`, false);
    setTimeout(() => void this.send(), AGAIN_MS);
    return false;
  }
}

function waiting(): Item[] {
  return remembered()
    .filter((name) => name.startsWith(OUTBOX))
    .flatMap((name) => {
      const items = JSON.parse(recall(name) ?? "[]") as Item[];
      remember(name, null);
      return items;
    });
}

function thisTab(): string {
  const known = sessionStorage.getItem("marco.tab");
  const tab = known ?? crypto.randomUUID();
  sessionStorage.setItem("marco.tab", tab);
  return tab;
}
