// What the browser keeps for the next time. It is only a convenience: it may be switched off.

export const stored = (key) => { try { return localStorage.getItem(key) ?? ""; } catch { return ""; } };
export const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* asked for again the next time */ } };

const REVIEWER = "spectag reviewer"; // the name of whoever decides about clips, in all views

export const storedReviewer = () => stored(REVIEWER);
export const storeReviewer = (name) => store(REVIEWER, name.trim().slice(0, 100));
