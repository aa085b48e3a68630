// Requests to the server. Its errors are problem details (RFC 9457), of which people see the detail.
import { strings } from "./strings.js";

export class ServerError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// The answer of the server as "json", "bytes" or "response". `body` is a Blob, FormData, or an object that becomes JSON.
// A busy server (429, 503) is asked again after the time that it names, up to `patience` times.
export async function request(path, { method = "GET", body, headers = {}, as = "json", signal, keepalive, patience = 0 } = {}) {
  const isJson = body !== undefined && !(body instanceof Blob) && !(body instanceof FormData);
  const options = { method, signal, keepalive, headers: { ...headers }, cache: "no-store" };
  if (body !== undefined) options.body = isJson ? JSON.stringify(body) : body;
  if (isJson) options.headers["content-type"] = "application/json";
  for (let attempt = 0; ; attempt += 1) {
    const response = await reach(path, options);
    if (response.ok) return whole(() => read(response, as));
    const error = new ServerError(response.status, await detailOf(response, path));
    if (attempt >= patience || ![429, 503].includes(response.status)) throw error;
    await pause(1000 * Math.min(60, Number(response.headers.get("retry-after")) || 1), signal);
  }
}

const reach = (path, options) => whole(() => fetch(path, options));

// What `get()` gives; a ServerError with the status 0 if the connection fails.
async function whole(get) {
  try {
    return await get();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // such as an AbortError
    throw new ServerError(0, strings.shell.unreachable);
  }
}

async function read(response, as) {
  if (as === "bytes") return response.arrayBuffer();
  if (as === "response" || response.status === 204) return response;
  return response.json();
}

async function detailOf(response, path) {
  if (response.status === 401 && path !== "/session") return strings.shell.tokenChanged;
  try {
    return (await response.json()).detail || response.statusText;
  } catch {
    return response.statusText || String(response.status);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
