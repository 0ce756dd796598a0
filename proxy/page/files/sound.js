/* A clip as the browser decodes it: its outline, and any part of it played again. */

const RATE_HZ = 48000;
const DECODED_WITHIN_MS = 8000;
let speaker = null;

/** A clip's `AudioBuffer`, or null where the browser does not know its format or takes too long. */
export async function decode(clip) {
  const late = new Promise((done) => setTimeout(done, DECODED_WITHIN_MS, null));
  try {
    // One that plays nothing may be made without a click before it.
    const decoder = new OfflineAudioContext(1, 1, RATE_HZ);
    return await Promise.race([decoder.decodeAudioData(await clip.arrayBuffer()), late]);
  } catch {
    return null;
  }
}

/** The largest amplitude, 0 to 1, in each of `count` equal parts. */
export function outline(buffer, count) {
  const samples = buffer.getChannelData(0);
  const peaks = new Array(count).fill(0);
  for (let place = 0; place < samples.length; place++) {
    const part = Math.min(count - 1, Math.floor((place * count) / samples.length));
    peaks[part] = Math.max(peaks[part], Math.abs(samples[place]));
  }
  return peaks;
}

/** Plays parts of one clip, one at a time. */
export class Player {
  #buffer;
  #source = null;
  #onPlace = null;
  #frame = 0;

  constructor(buffer) {
    this.#buffer = buffer;
  }

  /** `onPlace` gets the second that is played, again and again, and null at the end. */
  play(startS, endS, onPlace) {
    this.stop();
    speaker ??= new AudioContext();
    const source = new AudioBufferSourceNode(speaker, { buffer: this.#buffer });
    this.#source = source;
    this.#onPlace = onPlace;
    speaker.resume().catch(() => {});
    source.connect(speaker.destination);
    source.addEventListener("ended", () => this.#source === source && this.stop());
    const began = speaker.currentTime;
    source.start(0, startS, endS - startS);
    const follow = () => {
      onPlace(Math.min(endS, startS + speaker.currentTime - began));
      this.#frame = requestAnimationFrame(follow);
    };
    follow();
  }

  stop() {
    const source = this.#source;
    if (!source) return;
    this.#source = null;
    cancelAnimationFrame(this.#frame);
    source.disconnect();
    this.#onPlace(null);
  }
}
