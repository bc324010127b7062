// Colours and language: what the system prefers, until somebody chooses.

import { part } from "./dom.js";
import { language, onLanguage, say, speak, translate } from "./words.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");

export function begin() {
  translate(document);
  label();
  DARK.addEventListener("change", label);
  onLanguage(label);
  part("language").addEventListener("click", () => speak(language() === "zh" ? "en" : "zh"));
  part("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // Then it is as before when the page is opened again.
    }
    label();
  });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : DARK.matches;
}

function label() {
  part("theme").textContent = say(isDark() ? "light" : "dark");
  part("theme").setAttribute("aria-label", say(isDark() ? "toLight" : "toDark"));
  part("language").lang = language() === "zh" ? "en" : "zh";
}
