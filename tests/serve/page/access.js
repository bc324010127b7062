// Put into the page by the tests: what can be read, pressed and told of, measured as WCAG 2.2 says.
"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (one) => one.checkVisibility({ visibilityProperty: true });
  let canvas = null;

  /** A colour as [red, green, blue, opacity]: drawn, since style sheets write it in several ways. */
  function rgba(colour) {
    canvas ??= document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value, i) => (i === 3 ? value / 255 : value));
  }

  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));

  function behind(one) {
    if (!one) return rgba(getComputedStyle(document.body).backgroundColor).slice(0, 3);
    const own = rgba(getComputedStyle(one).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(one.parentElement));
  }

  function luminance(colour) {
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  /** Texts with too little contrast (1.4.3): under 4.5, or 3 where the text is large. Not of what is disabled. */
  window.pale = () => all("body *").flatMap((one) => {
    const said = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if ((!said && !one.placeholder) || !shown(one) || one.disabled || one.closest("noscript")) return [];
    const hinted = one.placeholder && !one.value;
    const { color, fontSize, fontWeight } = getComputedStyle(one, hinted ? "::placeholder" : null);
    const ground = behind(one);
    const [high, low] = [luminance(over(rgba(color), ground)), luminance(ground)].sort((a, b) => b - a);
    const size = Number.parseFloat(fontSize);
    const least = size >= 24 || (size >= 18.66 && fontWeight >= 700) ? 3 : 4.5;
    const contrast = (high + 0.05) / (low + 0.05);
    return contrast < least ? [`${contrast.toFixed(2)} ${one.localName}.${one.className} ${one.textContent.slice(0, 40)}`] : [];
  });

  /** Buttons that are too small to be pressed (2.5.8): under 24 pixels. */
  window.small = () => all("button").filter(shown).filter((one) => {
    const { width, height } = one.getBoundingClientRect();
    return width < 24 || height < 24;
  }).map((one) => one.textContent);

  /** Whether something is wider than there is room for. */
  window.wide = () => document.documentElement.scrollWidth > innerWidth
    || ["#scroller", "#panel", "#side"].flatMap(all).some((one) => one.scrollWidth > one.clientWidth);

  /** Whether what has the focus shows it: an outline, or the ring of the form around it. */
  window.ringed = () => {
    const one = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(one);
    const form = one.closest("#composer");
    const ring = form && getComputedStyle(form).boxShadow !== "none";
    return (outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 2) || ring;
  };

  window.focused = () => {
    const { ariaLabel, id, textContent } = document.activeElement;
    return ariaLabel || id || textContent.trim();
  };

  /** Ids that are there twice, and those that are pointed at and not there. */
  window.lost = () => {
    const ids = all("[id]").map(({ id }) => id);
    const ways = ["aria-controls", "aria-labelledby", "aria-describedby", "for"];
    const pointed = ways.flatMap((way) => all(`[${way}]`).flatMap((one) => one.getAttribute(way).split(" ")));
    return [...ids.filter((id, i) => ids.indexOf(id) !== i), ...pointed.filter((id) => id && !ids.includes(id))];
  };

  window.levels = () => all("h1, h2, h3, [role=heading]").map((one) => Number(one.ariaLevel ?? one.localName[1]));

  window.animations = () => [...new Set(all("*").flatMap((one) => {
    return [null, "::after"].map((part) => getComputedStyle(one, part).animationName);
  }))];

  /** Hears what a screen reader is told. */
  window.listen = () => {
    window.heard = [];
    const hear = (changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach((one) => window.heard.push(one.textContent)));
    new MutationObserver(hear).observe(document.querySelector("#live"), { childList: true });
  };

  /** Words that a file of the page asks for and that are not there in both languages. */
  window.unsaid = async () => {
    const { say } = await import(new URL("words.js", location.href));
    const files = performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => name.endsWith(".js"));
    const sources = await Promise.all([location.href, ...files].map(async (one) => (await fetch(one)).text()));
    const used = /say\("(\w+)"|data-(?:say|label|hint)="(\w+)"/g;
    const keys = new Set(sources.flatMap((text) => [...text.matchAll(used)].map((found) => found[1] ?? found[2])));
    return [...keys].filter((key) => ["en", "zh"].some((language) => {
      document.documentElement.lang = language;
      try {
        return !say(key);
      } catch {
        return true;
      }
    }));
  };
})();
