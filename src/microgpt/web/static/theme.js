// @ts-check
/** Light or dark before the first paint. No module, because modules run after it. */

(() => {
  try {
    const theme = localStorage.getItem("microgpt.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // no storage: the system's own choice
  }
})();
