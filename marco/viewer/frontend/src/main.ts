// Where the page begins: the header, the pages by their addresses, keys.

import "katex/dist/katex.css";
import "./viewer.css";
import { annotatePage } from "./annotate";
import { get, recall, remember } from "./api";
import type { App, Page } from "./app";
import { place } from "./app";
import { button, h, number, on, put } from "./dom";
import { listPage } from "./list";
import { pairPage, pairsPage } from "./pairs";
import { Saver } from "./saver";
import { exportedPage, treePage } from "./treepage";
import type { Session, Tree } from "./types";

const KEYS: [string, string][] = [
  ["list", "↑ ↓ rows, Enter opens, / searches, PageUp and PageDown turn pages"],
  ["tree", "arrows walk, n and b next and previous chain, Space folds, f folds all, + − 0 zoom, Shift+arrows move, [ ] other trees, m mathematics or plain text"],
  ["replay", "r starts, . and , step, > and < wave, p plays, Esc ends"],
  ["chain", "c correct, x wrong, d discard, e edit, u undo"],
  ["annotate", "→ next, ← back, ↑ ↓ scroll, and the keys of a chain"],
  ["everywhere", "g then t, a or p: trees, annotate, pairs; ? these keys"],
];

const root = document.getElementById("app")!;
let current: Page | null = null;
let isGoing = false; // after g

function show(header: HTMLElement | null, page: Page): void {
  current = page;
  document.title = `${page.title} · marco`;
  root.replaceChildren(...(header ? [header] : []), page.element);
  page.opened?.();
}

function theme(): HTMLButtonElement {
  const root = document.documentElement;
  const apply = (name: string | null): void => root.style.setProperty("color-scheme", name ?? "light dark");
  apply(recall("theme"));
  return button("◐", "light or dark", () => {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = recall("theme") ?? root.style.colorScheme;
    const next = now === "dark" || (now === "light dark" && isDark) ? "light" : "dark";
    remember("theme", next);
    apply(next);
  }, "plain");
}

function help(): void {
  const dialog = h("dialog", { class: "help" }, h("h2", {}, "keys"));
  for (const [name, keys] of KEYS) put(dialog, h("p", {}, h("b", {}, `${name} `), keys));
  put(dialog, button("close", "close", () => dialog.close()));
  on(dialog, { close: () => dialog.remove() });
  document.body.append(dialog);
  dialog.showModal();
}

function listen(): void {
  document.addEventListener("keydown", (event) => {
    const target = event.target as Element;
    const isTyping = target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && isTyping && target instanceof HTMLInputElement) target.blur();
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
    if (target.matches("a, button") && (event.key === "Enter" || event.key === " ")) return;
    const wasGoing = isGoing;
    isGoing = event.key === "g" && embedded === null;
    const page = wasGoing ? { t: "trees", a: "annotate", p: "pairs" }[event.key] : undefined;
    if (page !== undefined) location.hash = place(page);
    else if (event.key === "?") help();
    else if (!isGoing && !current?.keys?.(event)) return;
    event.preventDefault();
  });
}

async function start(): Promise<void> {
  const given = /[#&]token=([\w-]+)/.exec(location.hash);
  if (given) {
    remember("token", given[1] ?? null);
    history.replaceState(null, "", "#/trees");
  }
  const session = await get<Session>("/api/session");
  const saver = new Saver();
  const name = on(h("input", { "aria-label": "annotator", title: "whose annotations these are", value: recall("annotator") ?? session.annotator, size: 12 }), {
    change: () => {
      name.value = name.value.trim().slice(0, 100) || session.annotator;
      remember("annotator", name.value);
      progressed();
      void route();
    },
  });
  const saved = h("span", { class: "saved", role: "status" });
  const progress = h("span", { class: "progress" });
  const app: App = { session, saver, annotator: () => name.value, progressed };
  const links = ["trees", "annotate", "pairs"].map((page) => h("a", { href: place(page) }, page));
  const header = h("header", { class: "top" },
    h("h1", {}, session.folder), h("nav", {}, ...links), h("span", { class: "space" }),
    saved, progress, h("label", {}, "annotator ", name), button("?", "keys ( ? )", help, "plain"), theme());

  function progressed(): void {
    void get<Record<string, number>>("/api/annotations/progress", { annotator: app.annotator() }).then((counts) => {
      const done = (counts.correct ?? 0) + (counts.wrong ?? 0) + (counts.discard ?? 0);
      progress.textContent = `${number(done)} of ${number(counts.chains ?? 0)} chains labelled`;
    }, () => {});
  }

  saver.told = (text, isGood) => {
    saved.textContent = saver.pending > 1 && !isGood ? `${text} (${saver.pending} wait)` : text;
    saved.classList.toggle("is-bad", !isGood);
  };
  saver.saved = (state, n, what) => {
    current?.saved?.(state, n, what);
    progressed();
  };

  let routes = 0;
  async function open(): Promise<Page> {
    const [path = "", values = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
    const [page, which] = path.split("/", 2);
    const given = new URLSearchParams(values);
    if (page === "tree") return treePage(app, Number(which), given);
    if (page === "annotate") return annotatePage(app, given);
    if (page === "pairs") return pairsPage(app, given);
    if (page === "pair") return pairPage(app, Number(which), given);
    return listPage(app, given);
  }

  async function route(): Promise<void> {
    const own = ++routes;
    const page = await open().catch((error: Error): Page => {
      const text = error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;
      const again = button("try again", "load this page once more", () => void route());
      return { element: h("main", { class: "empty" }, h("p", {}, text), again), title: "not there" };
    });
    if (own !== routes) return; // another page was asked for since
    links.forEach((link) => link.toggleAttribute("aria-current", location.hash.startsWith(link.getAttribute("href") ?? "-")));
    show(header, page);
  }

  addEventListener("hashchange", () => void route());
  progressed();
  await route();
  void saver.send();
}

const embedded = document.getElementById("tree");
listen();
if (embedded) {
  theme();
  show(null, exportedPage(JSON.parse(embedded.textContent ?? "") as Tree));
} else {
  start().catch((error: Error) => root.replaceChildren(h("main", { class: "empty" }, h("p", {}, error.message))));
}
