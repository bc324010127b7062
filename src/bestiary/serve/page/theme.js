"use strict";
// Runs before the page is drawn, so that it is never drawn in the wrong colours or language first.
(() => {
  const root = document.documentElement;
  let kept = {};
  try {
    kept = { theme: localStorage.getItem("theme"), language: localStorage.getItem("language") };
  } catch {
    // A browser that keeps nothing: what it prefers is taken.
  }
  if (kept.theme === "light" || kept.theme === "dark") root.dataset.theme = kept.theme;
  const language = kept.language ?? navigator.language;
  root.lang = language.startsWith("zh") ? "zh" : "en";
})();
