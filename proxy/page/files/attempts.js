/* Attempts, kept by this browser and sent to nobody. */

const NAME = "aureavoice";
const VERSION = 1;
const ATTEMPTS = "attempts";
const UNSENT = "unsent";
/** The sound of older ones is let go: their numbers stay. */
const WITH_SOUND = 20;
/** Longer clips can be played until the page is closed. */
const MOST_BYTES = 5_000_000;

let opened = null;

/** All attempts, the oldest first. None where the browser keeps nothing, as in a private window. */
export async function attempts() {
  return (await within(ATTEMPTS, "readonly", (store) => store.getAll())) ?? [];
}

/** Keeps an attempt: when (`at`), its document, language, sentence and clip. Returns it with an id. */
export async function keepAttempt({ clip, ...attempt }) {
  // Some Safaris lose what a Blob of theirs held, so its bytes are kept.
  const bytes = clip.size <= MOST_BYTES ? await clip.arrayBuffer() : null;
  const kept = { ...attempt, type: clip.type, bytes };
  const id = await within(ATTEMPTS, "readwrite", (store) => store.add(kept));
  const all = await attempts();
  for (const old of all.slice(0, -WITH_SOUND).filter(({ bytes }) => bytes)) {
    await putAttempt({ ...old, bytes: null });
  }
  // Where nothing can be kept, the moment tells one from another.
  return { ...kept, id: id ?? attempt.at, clip };
}

export const putAttempt = ({ clip: _, ...attempt }) =>
  within(ATTEMPTS, "readwrite", (store) => store.put(attempt));

/** The sound of an attempt, or null where it was let go. */
export const clipOf = ({ clip, bytes, type }) =>
  clip ?? (bytes ? new Blob([bytes], { type }) : null);

export const forgetAttempts = () => within(ATTEMPTS, "readwrite", (store) => store.clear());

/** Keeps the clip that could not be sent, instead of any other. */
export async function keepUnsent(clip, name) {
  const kept = { type: clip.type, bytes: await clip.arrayBuffer(), name };
  await within(UNSENT, "readwrite", (store) => store.put(kept, 0));
}

/** The clip that could not be sent and its `name`, or null. */
export async function unsent() {
  const kept = await within(UNSENT, "readonly", (store) => store.get(0));
  return kept ? { clip: clipOf(kept), name: kept.name } : null;
}

export const forgetUnsent = () => within(UNSENT, "readwrite", (store) => store.clear());

function open() {
  opened ??= new Promise((done) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(ATTEMPTS, { keyPath: "id", autoIncrement: true });
      request.result.createObjectStore(UNSENT);
    };
    request.onsuccess = () => done(request.result);
    request.onerror = request.onblocked = () => done(null);
  }).catch(() => null);
  return opened;
}

/** What the request that `ask` makes of a store results in; null where nothing can be kept. */
async function within(name, mode, ask) {
  try {
    const database = await open();
    if (!database) return null;
    return await new Promise((done, fail) => {
      const request = ask(database.transaction(name, mode).objectStore(name));
      request.onsuccess = () => done(request.result);
      request.onerror = () => fail(request.error);
    });
  } catch {
    return null;
  }
}
