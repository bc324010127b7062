// Where conversations are kept: this browser's IndexedDB, or nowhere where there is none.

import { Conversation } from "./conversation.js";

const NAME = "bestiary";
const STORE = "conversations";

/** Opens the store; where the browser keeps nothing, one that keeps nothing: `lasting` tells. */
export async function open() {
  try {
    return new Kept(await database());
  } catch {
    return new Unkept();
  }
}

class Kept {
  lasting = true;

  constructor(database) {
    this.database = database;
  }

  /** All conversations, the last changed first. What is not one is passed over. */
  async all() {
    const found = await done(this.database.transaction(STORE).objectStore(STORE).getAll());
    return found.map((data) => Conversation.of(data)).filter(Boolean).sort((a, b) => b.changed - a.changed);
  }

  async put(conversation) {
    const store = this.database.transaction(STORE, "readwrite").objectStore(STORE);
    await done(store.put(conversation.data()));
  }

  async remove(id) {
    await done(this.database.transaction(STORE, "readwrite").objectStore(STORE).delete(id));
  }
}

class Unkept {
  lasting = false;

  async all() {
    return [];
  }

  async put() {}

  async remove() {}
}

function database() {
  const asked = indexedDB.open(NAME, 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id" });
  return done(asked);
}

function done(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
    asked.onblocked = () => reject(new Error("blocked"));
  });
}
