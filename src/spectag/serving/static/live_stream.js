// Samples to the server, onsets and offsets of labels back, through a WebSocket.

const MAX_WAITING_SECONDS = 1.5; // of sound that is not sent yet

export class LiveStream {
  // `parameters` of /v1/listen; `on`: opened(), event(record), closed(status, reason), slow()
  constructor(parameters, on) {
    this.rate = parameters.sample_rate;
    this.on = on;
    this.waiting = []; // blocks, until the connection is open
    this.isEnded = false;
    const address = new URL("/v1/listen", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.opened());
    this.socket.addEventListener("message", ({ data }) => { if (!this.isEnded) this.on.event(JSON.parse(data)); });
    this.socket.addEventListener("close", ({ code, reason }) => this.closed(code, reason));
  }

  opened() {
    for (const block of this.waiting) this.socket.send(block);
    this.waiting = [];
    if (this.isEnded) this.finish();
    else this.on.opened();
  }

  // Samples of 16 bits.
  send(block) {
    if (this.isEnded) return;
    if (this.socket.readyState === WebSocket.CONNECTING) this.waiting.push(block);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(block);
    if (this.socket.bufferedAmount > 2 * this.rate * MAX_WAITING_SECONDS) this.on.slow();
  }

  end() {
    if (this.isEnded) return;
    this.isEnded = true;
    if (this.socket.readyState === WebSocket.OPEN) this.finish();
  }

  finish() {
    this.socket.send("end");
    this.socket.close();
  }

  closed(code, reason) {
    if (this.isEnded) return;
    this.isEnded = true;
    this.on.closed(code, reason);
  }
}
