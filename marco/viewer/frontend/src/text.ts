// A model's text as text: tags marked, and mathematics rendered where it can be.

import katex from "katex";
import { h } from "./dom";

const LONGEST_FORMULA = 2000; // characters; longer ones are shown as they are
const MOST_FORMULAS = 500; // of one text
const DELIMITERS: [string, string, boolean][] = [
  ["$$", "$$", true],
  ["\\[", "\\]", true],
  ["\\(", "\\)", false],
  ["$", "$", false],
];

export function rendered(text: string, mathematics: boolean): DocumentFragment {
  const all = document.createDocumentFragment();
  let place = 0;
  let formulas = 0;
  for (const { start, end, source, display } of mathematics ? formulasIn(text) : []) {
    if (formulas++ === MOST_FORMULAS) break;
    all.append(tagged(text.slice(place, start)), formula(source, text.slice(start, end), display));
    place = end;
  }
  all.append(tagged(text.slice(place)));
  return all;
}

function formula(source: string, whole: string, display: boolean): Node {
  const place = h("span", { class: "formula", title: whole });
  try {
    katex.render(source, place, {
      displayMode: display,
      throwOnError: true,
      strict: "ignore",
      trust: false, // no links, images or HTML out of a formula
      maxExpand: 200,
      maxSize: 20,
    });
  } catch {
    return h("span", { class: "no-formula", title: "not LaTeX that can be rendered" }, whole);
  }
  return place;
}

interface Formula {
  start: number;
  end: number;
  source: string;
  display: boolean;
}

export function formulasIn(text: string): Formula[] {
  const found: Formula[] = [];
  const ended = new Set<string>(); // closing signs that do not come any more
  let place = 0;
  while (place < text.length) {
    const at = nextSign(text, place);
    if (at < 0) break;
    const kind = DELIMITERS.find(([opening]) => text.startsWith(opening, at));
    place = at + 1;
    if (kind === undefined || ended.has(kind[1])) continue;
    const [opening, closing, display] = kind;
    const from = at + opening.length;
    const to = closing === "$" ? closingDollar(text, from) : text.indexOf(closing, from);
    if (to === -1 && closing !== "$") ended.add(closing);
    if (to > from && to - from <= LONGEST_FORMULA) {
      place = to + closing.length;
      found.push({ start: at, end: place, source: text.slice(from, to), display });
    }
  }
  return found;
}

function nextSign(text: string, place: number): number {
  for (let i = place; i < text.length; i++) {
    const sign = text[i];
    if (sign === "$" || (sign === "\\" && (text[i + 1] === "(" || text[i + 1] === "["))) return i;
  }
  return -1;
}

// A dollar sign is also money: as in Pandoc, no space stands inside a formula's signs, and no digit
// follows it.
function closingDollar(text: string, from: number): number {
  if (/\s/.test(text[from] ?? " ")) return -1;
  const end = Math.min(text.length, from + LONGEST_FORMULA + 1);
  for (let i = from; i < end && text[i] !== "\n"; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "$") return /\s/.test(text[i - 1] ?? " ") || /\d/.test(text[i + 1] ?? "") ? -1 : i;
  }
  return -1;
}

function tagged(text: string): DocumentFragment {
  const all = document.createDocumentFragment();
  for (const part of text.split(/(<\/?[a-z][a-z_-]{0,40}>)/)) {
    if (/^<\/?[a-z]/.test(part)) all.append(h("span", { class: "tag" }, part));
    else if (part) all.append(part);
  }
  return all;
}
