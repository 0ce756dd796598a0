/* The microphone: asked for plainly, watched while it records, and let go of at the end. */

import { decode } from "./sound.js";

export const MOST_S = 60;
const TYPES = [
  "audio/webm;codecs=opus",
  "audio/mp4;codecs=mp4a.40.2",
  "audio/mp4",
  "audio/ogg;codecs=opus",
  "audio/webm",
];
/** Peaks below it come from no microphone that is on: full scale is 1, this is -60 dBFS. */
const SILENT_PEAK = 0.001;
/** -34 dBFS: a voice, but one far from the microphone. */
const QUIET_PEAK = 0.02;
const JUDGED_AFTER_S = 1.2;
const QUIET_AFTER_S = 3;
const LOOK_EVERY_MS = 50;
const FAULTS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotReadableError: "busy",
  AbortError: "busy",
};

/** `id` names the failure in the page's strings. */
export class RecordingFault extends Error {
  constructor(id) {
    super(id);
    this.id = id;
  }
}

/** What stands in the way of recording here at all, or null. */
export function obstacle() {
  if (!isSecureContext || !navigator.mediaDevices?.getUserMedia) return "insecure";
  return typeof MediaRecorder === "undefined" ? "unsupported" : null;
}

export class Recorder {
  #stream = null;
  #context = null;
  #analyser = null;
  #recorder = null;
  #stopped = null;
  #timer = null;
  #chunks = [];
  #samples = null;
  #startedAt = 0;
  #peak = 0;
  #looks = 0;
  #onLook;
  #wasEnded;

  /**
   * `onLook({level, seconds, state})` is called about twenty times a second: level is 0 to 1,
   * state `silent`, `quiet` or `fine`. `onEnded` is called where the recording ended by itself.
   */
  constructor(onLook, onEnded) {
    this.#onLook = onLook;
    this.#wasEnded = onEnded;
  }

  /** Starts to record. Rejects with a `RecordingFault`. To be called by a click: Safari insists. */
  async start() {
    const hindered = obstacle();
    if (hindered) throw new RecordingFault(hindered);
    // Only for the meter: where it never runs, as without a sound card, recording goes on, and
    // what was recorded is looked at once it is whole.
    this.#context = new AudioContext();
    this.#context.resume().catch(() => {});
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          echoCancellation: false,
          noiseSuppression: false,
          autoGainControl: false,
          channelCount: { ideal: 1 },
        },
      });
    } catch (error) {
      this.release();
      throw new RecordingFault(FAULTS[error.name] || "microphone");
    }
    this.#analyser = new AnalyserNode(this.#context, { fftSize: 4096 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#context.createMediaStreamSource(this.#stream).connect(this.#analyser);
    const mimeType = TYPES.find((each) => MediaRecorder.isTypeSupported(each));
    this.#recorder = new MediaRecorder(this.#stream, { mimeType, audioBitsPerSecond: 96000 });
    this.#recorder.addEventListener("dataavailable", ({ data }) => this.#chunks.push(data));
    this.#stopped = new Promise((done) => this.#recorder.addEventListener("stop", done));
    // A microphone that is pulled out ends its track, and the recorder with it.
    this.#stream.getAudioTracks()[0].addEventListener("ended", () => this.#wasEnded());
    this.#recorder.start();
    this.#startedAt = performance.now();
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** Ends the recording: its `blob`, `seconds` and whether nothing but silence came. */
  async stop() {
    clearInterval(this.#timer);
    const seconds = this.#seconds();
    // One whose microphone was pulled out stops by itself, and then has its sound too.
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    await this.#stopped;
    const blob = new Blob(this.#chunks, { type: this.#recorder.mimeType.split(";")[0] });
    this.release();
    const silent = this.#looks ? this.#peak < SILENT_PEAK : await isSoundless(blob);
    return { blob, seconds, silent };
  }

  /** Lets go of the microphone. What was recorded is dropped. */
  release() {
    clearInterval(this.#timer);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context?.state !== "closed") this.#context?.close();
  }

  #seconds() {
    return (performance.now() - this.#startedAt) / 1000;
  }

  #look() {
    const seconds = this.#seconds();
    let peak = 0;
    // A context that a browser holds back hears nothing and proves nothing.
    if (this.#context.state === "running") {
      this.#analyser.getFloatTimeDomainData(this.#samples);
      for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
      this.#peak = Math.max(this.#peak, peak);
      this.#looks += 1;
    }
    this.#onLook({ level: asLevel(peak), seconds, state: this.#judge(seconds) });
    if (seconds >= MOST_S) this.#wasEnded();
  }

  #judge(seconds) {
    if (!this.#looks || seconds < JUDGED_AFTER_S) return "fine";
    if (this.#peak < SILENT_PEAK) return "silent";
    return seconds >= QUIET_AFTER_S && this.#peak < QUIET_PEAK ? "quiet" : "fine";
  }
}

/** Whether a recording that no meter has watched is silence. Where that cannot be told it is not. */
async function isSoundless(blob) {
  const buffer = await decode(blob);
  if (!buffer?.length) return false;
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    if (buffer.getChannelData(channel).some((sample) => Math.abs(sample) >= SILENT_PEAK)) return false;
  return true;
}

/** An amplitude from -60 to 0 dBFS as 0 to 1. */
function asLevel(peak) {
  return peak > 0 ? Math.min(1, Math.max(0, 1 + (20 * Math.log10(peak)) / 60)) : 0;
}
