// A microphone: its samples in blocks, while it is open.

export const canListen = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

// The microphones of this computer. Their names are empty until a microphone has been allowed.
export async function microphones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId);
}

// Opens a microphone, the default one if `deviceId` is empty. `on`: block(samples) and ended(), if it is unplugged.
export async function openMicrophone(deviceId, on) {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (deviceId) audio.deviceId = { exact: deviceId };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("/static/live_worklet.js");
    await context.resume();
  } catch (error) {
    release(stream, context);
    throw error;
  }
  return new Microphone(stream, context, on);
}

class Microphone {
  constructor(stream, context, on) {
    this.stream = stream;
    this.context = context;
    [this.track] = stream.getAudioTracks();
    this.track.addEventListener("ended", on.ended);
    this.node = new AudioWorkletNode(context, "live-recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => on.block(data);
    context.createMediaStreamSource(stream).connect(this.node);
  }

  get rate() { return this.context.sampleRate; }
  get deviceId() { return this.track.getSettings().deviceId ?? ""; }

  pause() { return this.context.suspend(); }
  resume() { return this.context.resume(); }

  close() {
    this.node.port.onmessage = null;
    release(this.stream, this.context);
  }
}

function release(stream, context) {
  for (const track of stream.getTracks()) track.stop();
  context.close();
}
