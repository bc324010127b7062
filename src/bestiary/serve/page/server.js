// What there is to ask: the models of /v1/models, the roster's card, and whether there is a chat template.

import { ApiError, ask } from "./api.js";

export class Server {
  models = [];
  entry = null;
  template = null;
  chats = true;

  /** Asks for all of it. Raises ApiError. */
  async load() {
    const { data } = await ask("v1/models");
    if (!Array.isArray(data) || !data.length) throw new ApiError("strange", "no models");
    this.models = data.filter((one) => typeof one?.id === "string");
    const card = await ask("v1/card");
    this.entry = typeof card.entry === "object" ? card.entry : null;
    if (this.writes) await this.#probe();
  }

  get model() {
    return this.models.find(({ parent }) => !parent) ?? this.models[0] ?? null;
  }

  get adapters() {
    return this.models.filter(({ parent }) => parent).map(({ id }) => id);
  }

  /** Whether it writes at all: an encoder embeds. */
  get writes() {
    return !Array.isArray(this.model?.abilities) || this.model.abilities.includes("generate");
  }

  /** Whether it goes on with a text; an encoder-decoder answers it. */
  get continues() {
    return this.entry?.kind !== "encoder-decoder";
  }

  /** A base model refuses to render a conversation, by a code of its own. */
  async #probe() {
    try {
      const { template } = await ask("v1/render", { model: this.model.id, messages: [{ role: "user", content: "." }] });
      this.template = template ?? null;
      this.chats = true;
    } catch (error) {
      if (error.code !== "no_chat_template") throw error;
      this.template = null;
      this.chats = false;
    }
  }
}
