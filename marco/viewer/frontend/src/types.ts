// What the server's JSON holds: marco/viewer/server.py.

export type Label = "correct" | "wrong" | "discard";

export interface Counts {
  trees: number;
  chains: number;
  correct: number;
  wrong: number;
  no_answer: number;
  by_status: Record<string, number>;
}

export interface Session {
  folder: string;
  annotator: string;
  choices: { status: string[]; pattern: string[]; kinds: string[]; error_classes: string[] };
  total: Counts;
  has_pairs: boolean;
}

export interface Row {
  n: number;
  id: string;
  problem: string;
  gold: string;
  status: string;
  pattern: string;
  nodes: number;
  tokens: number | null;
  chains: number;
  correct: number;
  wrong: number;
  no_answer: number;
  solved_share: number | null;
  shortest: number | null;
  longest: number | null;
  error_classes: string;
}

export interface TreeNode {
  id: number;
  parent: number | null;
  kind: string;
  model: string | null;
  text: string;
  visits: number;
  value: number;
  tokens: number;
  finish: string | null;
  verdict: string | null;
  answer: string | null;
  copies: number;
  ucb: number | null;
}

export interface Chain {
  node: number;
  tokens: number;
}

export interface Verdict {
  why: string | null;
  error_classes: string[];
}

export interface Tree {
  id: string;
  task: string;
  problem: string;
  gold: string;
  pattern: string;
  models: Record<string, string>;
  seed: number;
  status: string;
  usage: Record<string, number>;
  nodes: TreeNode[];
  chains: Chain[];
  verdicts?: Record<string, Verdict>; // by the node; they come after the tree
}

export interface Step {
  wave: number;
  event: "selection" | "backtrack" | "expansion" | "copy" | "verdict" | "backpropagation";
  node?: number;
  leaf?: number;
  reward?: number;
  path?: number[];
  scores?: [number, number | null][][];
}

export interface State {
  seq: number;
  tree: string;
  node: number;
  label: Label | null;
  text: string | null;
}

export interface PairRow {
  row: number;
  id: string;
  chosen_tokens: number;
  rejected_tokens: number;
  shared_prefix_tokens: number;
  bucket: string;
  margin_nats: number | null;
}

export interface Segment {
  text: string;
  shared: boolean;
  differs: boolean;
  preference: boolean | null;
  sft?: boolean | null;
}

export interface Side {
  node: number;
  tokens: number;
  shared_tokens: number;
  carrying_tokens: { preference: number; sft?: number };
  segments: Segment[];
}

export interface Pair {
  row: number;
  id: string;
  prompt: string;
  scope: string;
  bucket: string;
  has_tokens: boolean;
  margins: {
    student: string;
    step: number;
    margin_nats: number;
    chosen_reward: number;
    rejected_reward: number;
  }[];
  chosen: Side;
  rejected: Side;
}
