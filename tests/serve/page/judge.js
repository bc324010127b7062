// Put into the page by the tests: judges what is shown, and does quickly what a person does slowly.
"use strict";
(() => {
  const ROOTS = "#thread, #opening, #list, #rendered, #card, #import-said, #notice, #live, #key-why, #probe";
  const ELEMENTS = new Set((
    "article p div span button a em strong del code pre figure figcaption ul ol li blockquote hr h2 table thead " +
    "tbody tr th td abbr textarea input small h3 dl dt dd sub"
  ).split(" "));
  const ATTRIBUTES = new Set((
    "class role tabindex href rel target type dir start scope title disabled hidden rows style autocomplete " +
    "maxlength data-id data-turn data-act data-band data-index data-sure"
  ).split(" "));
  const by = (id) => document.getElementById(id);

  /** What stands where text is shown and is not what the page draws: an element, an attribute, an address. */
  window.judge = () => {
    const wrong = [];
    for (const one of document.querySelectorAll(ROOTS.split(", ").map((root) => `${root} *`).join())) {
      if (!ELEMENTS.has(one.localName) || one.namespaceURI !== "http://www.w3.org/1999/xhtml") wrong.push(one.outerHTML.slice(0, 200));
      for (const { name, value } of one.attributes) {
        const known = ATTRIBUTES.has(name) || name.startsWith("aria-");
        if (!known || (name === "style" && !/^(inline-size|left|top)/.test(value))) wrong.push(`${name}=${value.slice(0, 100)}`);
      }
      if (one.localName === "a") wrong.push(...judgeLink(one));
    }
    if (Object.prototype.polluted || {}.role) wrong.push("the prototype of all objects was changed");
    return wrong;
  };

  function judgeLink(link) {
    const address = link.getAttribute("href");
    const web = /^https?:\/\/[!-~]+$/.test(address) && !/["'<>\\]/.test(address) && !new URL(address).username;
    const apart = link.target === "_blank" && link.rel === "noopener noreferrer nofollow";
    const text = link.closest(".link")?.textContent ?? link.textContent;
    const seen = link.closest("#card") || text.includes(address) || text.includes(address.replace(/\/$/, ""));
    return web && apart && seen ? [] : [link.outerHTML.slice(0, 200)];
  }

  /** Draws every beginning of each text, as a stream does, and judges what comes of it. */
  window.grow = async (texts) => {
    const { draw } = await import(new URL("prose.js", location.href));
    const box = document.createElement("div");
    box.id = "probe";
    document.body.append(box);
    const wrong = [];
    for (const text of texts) {
      const growing = document.createElement("div");
      box.replaceChildren(growing);
      const step = Math.max(1, Math.floor(text.length / 150));
      for (let end = 0; end < text.length; end += step) draw(growing, text.slice(0, end));
      draw(growing, text);
      wrong.push(...window.judge());
      const whole = document.createElement("div");
      draw(whole, text);
      if (whole.innerHTML !== growing.innerHTML) wrong.push(`grew otherwise: ${text.slice(0, 80)}`);
    }
    box.remove();
    return wrong;
  };

  async function until(there) {
    for (let i = 0; i < 4000 && !there(); i += 1) await new Promise((done) => setTimeout(done, 5));
    if (!there()) throw new Error(`waited in vain for ${there}: ${by("notice").textContent}`);
  }

  /** Sends each text as the first message of a conversation, and looks at the answer and at its tokens. */
  window.play = async (texts) => {
    const wrong = [];
    const odds = () => document.querySelector("article.assistant [data-act=probabilities]");
    for (const text of texts) {
      by("new").click();
      by("say").value = text;
      by("composer").requestSubmit();
      await until(odds);
      wrong.push(...window.judge());
      odds().click();
      document.querySelector("[data-index]").focus();
      wrong.push(...window.judge());
      const [yours, theirs] = [...document.querySelectorAll("article .said")];
      if (yours.textContent !== text.replace(/\r\n?/g, "\n")) wrong.push(`said ${yours.textContent}`);
      if (theirs.querySelector(".tokens").textContent !== text) wrong.push(`shown ${theirs.textContent}`);
    }
    return wrong;
  };

  /** Opens each conversation of the list, and its title to be changed. */
  window.browse = () => {
    const wrong = [];
    for (let i = 0; i < document.querySelectorAll("#list .title").length; i += 1) {
      document.querySelectorAll("#list .title")[i].click();
      wrong.push(...window.judge());
      document.querySelector("#list [data-act=rename]").click();
      wrong.push(...window.judge());
      document.querySelector("#list input").blur();
    }
    return wrong;
  };
})();
