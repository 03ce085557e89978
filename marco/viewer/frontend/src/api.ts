// The server's JSON, and the token that lets this page write.

type Values = Record<string, string | number | boolean | undefined>;

export class Refused extends Error {
  constructor(readonly status: number, message: string, readonly body: unknown) {
    super(message);
  }
}

export function query(values: Values): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
}

export async function get<T>(path: string, values: Values = {}): Promise<T> {
  return answer<T>(await fetch(`${path}?${query(values)}`));
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json", "X-Token": recall("token") ?? "" };
  return answer<T>(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function answer<T>(response: Response): Promise<T> {
  const body: unknown = await response.json().catch(() => null);
  if (response.ok) return body as T;
  const detail = (body as { detail?: unknown } | null)?.detail;
  throw new Refused(response.status, typeof detail === "string" ? detail : `the server said ${response.status}`, body);
}

// Where a page may not store anything (a frame of a dashboard), nothing is remembered.
export function recall(name: string): string | null {
  try {
    return localStorage.getItem(`marco.${name}`);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`marco.${name}`);
    else localStorage.setItem(`marco.${name}`, value);
  } catch {
    // not remembered
  }
}

export function remembered(): string[] {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith("marco.")).map((name) => name.slice(6));
  } catch {
    return [];
  }
}
